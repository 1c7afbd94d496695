"""Whether a query needs one answer (SIMPLE) or an agent (COMPLEX): by rules, and where they cannot tell, by a model.

The rules weigh what a query asks for: something that has to be looked up, several things in a row, a comparison or a
plan over several sources. They read English and Russian; of other languages they see numbers, links and lists.
"""

from dataclasses import replace
from typing import Any

import re2

from processors.agents.ports import PlannedStep
from processors.completion.ask_model import ask
from processors.completion.fit_generation import fitted
from processors.ports import CompletionProvider, CompletionRequest, Guard
from schemas.events import Decision, Job
from schemas.generation import GenerationConfig
from schemas.requests import AgentRequest, ChatRequest, SmartRequest

SURE_SIMPLE, SURE_COMPLEX, EVEN = 0.3, 0.7, 0.5
DECIDING = (
    "You sort queries. SIMPLE: one answer from general knowledge or from the query's own text is enough. COMPLEX: it "
    "takes several steps, looking something up in documents or other systems, or comparing what was found. Answer with "
    "one word: SIMPLE or COMPLEX."
)


def _any(*patterns: str) -> "re2._Regexp":
    options = re2.Options()
    options.case_sensitive, options.never_capture, options.log_errors = False, True, False
    return re2.compile("|".join(f"(?:{pattern})" for pattern in patterns), options)


# Name, what it looks for, and how much it speaks for an agent (or against one).
_RULES: tuple[tuple[str, "re2._Regexp", float], ...] = (
    (
        "looks something up",
        _any(
            r"\b(?:search|look up|look for|look through|go through|find|check|scan|query|"
            r"consult)\b[^.?!]{0,60}\b(?:documents?|files?|"
            r"reports?|contracts?|notes?|pdfs?|manuals?|handbooks?|knowledge base|database|records?|"
            r"archives?|invoices?|"
            r"emails?|wiki|logs?|tickets?|uploads?|polic(?:y|ies)|minutes|attachments?|transcripts?|"
            r"specs?|specification|"
            r"guidelines?|papers?|api|website|site|page|web|internet|online)\b",
            r"\b(?:in|from|across|within|according to|based on|per) (?:all )?(?:of )?(?:my|our|the|"
            r"these|those|uploaded|attached|both|each) "
            r"(?:\w+ ){0,3}(?:documents?|files?|reports?|contracts?|notes|pdfs?|manuals?|handbooks?|"
            r"knowledge base|database|"
            r"records|archives?|invoices?|emails?|wiki|logs|tickets|uploads?|polic(?:y|ies)|minutes|"
            r"attachments?|transcripts?|"
            r"papers|guidelines)\b",
            r"(?:найди|найти|поищи|посмотри|проверь|просмотри|изучи|собери)[^.?!]{0,60}(?:документ|"
            r"файл|отчёт|отчет|договор|"
            r"заметк|инструкци|архив|счет|счёт|письм|баз|сайт|интернет|реестр|протокол|журнал|тикет|заявк|api)",
            r"(?:в|из|по) (?:моих|наших|этих|всех|загруженных|моей|нашей|наших|моим|нашим|"
            r"всем) (?:\w+ )?(?:документ|файл|отчёт|отчет|"
            r"договор|заметк|инструкци|архив|счет|счёт|письм|баз|протокол|журнал|тикет|заявк)",
        ),
        0.55,
    ),
    (
        "speaks of one's own documents",
        _any(
            r"\b(?:the|my|our|both|these|those|attached|uploaded|two|three|all) "
            r"(?:\w+ ){0,2}(?:documents|contracts|invoices|"
            r"quotes|offers|reports|files|manuals|statements|transcripts|minutes|receipts|policies|handbook|agreements?|"
            r"specification)\b",
            r"(?:договор|отчёт|отчет|протокол|заметк|документ|файл|счет|счёт)\w*",
        ),
        0.35,
    ),
    (
        "calls a service",
        _any(
            r"\b(?:call|fetch|request|get|post|send|download|retrieve|pull|ping|"
            r"query)\b[^.?!]{0,50}\b(?:api|endpoint|url|service|"
            r"webhook|server|https?://)",
            r"(?:вызови|запроси|отправь|получи|скачай|обратись)[^.?!]{0,50}(?:api|сервис|сервер|адрес|"
            r"https?://|вебхук)",
            r"\b(?:current|latest|today'?s|live|up-to-date|right now)\b[^.?!]{0,30}\b(?:price|rate|"
            r"weather|status|stock|news|"
            r"exchange|score|version|figures?|numbers?)\b",
            r"(?:текущ|последн|сегодняшн|актуальн)\w*[^.?!]{0,30}(?:курс|погод|цен|статус|новост|"
            r"котировк|верси)",
        ),
        0.5,
    ),
    (
        "several things in a row",
        _any(
            r"\b(?:and|,|;|\.) ?then\b",
            r"\bafter (?:that|which|this)\b",
            r"\bfirst(?:ly)?,? .{3,200}\b(?:then|second(?:ly)?|next|"
            r"finally|after)\b",
            r"\b(?:finally|afterwards|subsequently),? ",
            r"\bonce (?:you|that|this|it)\b[^.?!]{2,60},",
            r"\bstep[s]? (?:1|one)\b",
            r"(?m)^\s*(?:1[.)]|[-*]) .+\n\s*(?:2[.)]|[-*]) ",
            r"(?:затем|потом|после этого|после чего|сначала|сперва|во-первых|наконец|а дальше|далее)\b",
        ),
        0.4,
    ),
    (
        "compares what is found",
        _any(
            r"\b(?:compare|contrast|cross-check|cross-reference|reconcile|match up|correlate|verify|"
            r"validate|double-check)\b[^.?!]{0,80}"
            r"\b(?:documents?|reports?|files?|contracts?|versions?|quarters?|invoices?|suppliers?|"
            r"vendors?|offers?|quotes?|"
            r"years?|policies|budgets?|statements?|sources|against|records?|datasets?|releases?|"
            r"competitors?)\b",
            r"(?:сравни|сопоставь|сверь|проверь)[^.?!]{0,80}(?:документ|отчёт|отчет|файл|договор|"
            r"верси|квартал|поставщик|"
            r"предложени|бюджет|источник|с данными|год|счет|счёт)",
        ),
        0.4,
    ),
    (
        "plans or researches",
        _any(
            r"\b(?:research|investigate|analy[sz]e|audit|gather|collect|compile|track down|figure out|"
            r"work out|plan|prepare|"
            r"draw up|put together|assess|evaluate|monitor|identify all|list all|"
            r"every)\b[^.?!]{0,100}\b(?:and|report|across|all|"
            r"each|every|sources|market|competitors?|options|risks|trip|itinerary|budget|roadmap|data|"
            r"documents?)\b",
            r"(?:исследуй|проанализируй|собери|подготовь|спланируй|составь план|оцени|разберись|"
            r"выясни|отследи)",
        ),
        0.35,
    ),
    (
        "reports on what it did",
        _any(
            r"\b(?:summari[sz]e|report|list|draft|write up|tell me|give me|explain|calculate|compute|"
            r"total|send|save|email|"
            r"recommend|suggest|propose|rank)\b[^.?!]{0,40}\b(?:what you f(?:ind|ound)|"
            r"the (?:results?|findings|differences|"
            r"discrepanc(?:y|ies))|your (?:sources|findings)|which (?:one|of them)|with (?:sources|"
            r"citations|references|links|quotes))",
            r"\b(?:with|cite|citing|quote|including) (?:the |your |all )?(?:sources|citations|"
            r"references|page numbers)\b",
            r"(?:что нашёл|что нашел|с указанием источник|со ссылками|результат[ыа]? поиска|расхожден)",
        ),
        0.3,
    ),
    (
        "is asked for in one sentence",
        _any(
            r"^\s*(?:what(?:'s| is| are| was| were| does| do| year| color| colour)|who|when|where|why|"
            r"how (?:many|much|old|tall|far|long|do "
            r"you|does|do|is|are|can|to)|which|is|are|does|do|can|could you (?:explain|tell|"
            r"translate)|define|translate|spell|"
            r"convert|explain|name|hi|hello|thanks|thank you|good (?:morning|evening)|write (?:a|an|"
            r"me)|rewrite|paraphrase|"
            r"correct|fix|give me (?:a|an|three|five|ten|some)|tell me (?:a|about|the difference)|"
            r"list (?:three|five|ten|some|the)|"
            r"describe|suggest a|complete|continue|proofread|shorten|rephrase|simplify|calculate|"
            r"solve|make this)\b",
            r"^\s*(?:что такое|кто|когда|где|почему|сколько|какой|какая|какие|какое|как|переведи|"
            r"объясни|привет|спасибо|напиши|"
            r"перефразируй|исправь|назови|придумай|реши|вычисли|определи|расскажи|опиши|зачем|чем|"
            r"дай определение|продолжи)\b",
        ),
        -0.3,
    ),
)
_VERBS = _any(
    r"\b(?:search|find|look up|read|open|fetch|call|download|compare|check|verify|summari[sz]e|list|"
    r"calculate|compute|write|draft|"
    r"send|email|save|extract|gather|collect|analy[sz]e|research|investigate|rank|recommend|identify|"
    r"count|report|translate|"
    r"post|plan|prepare|cross-check|reconcile|review|propose|book|schedule|estimate|highlight|flag|"
    r"match|sort|group|create)\b",
    r"(?:найди|прочитай|открой|вызови|сравни|проверь|суммируй|перечисли|посчитай|вычисли|напиши|"
    r"отправь|сохрани|извлеки|собери|"
    r"проанализируй|исследуй|оцени|подготовь|составь|выпиши|сверь|предложи|выдели|переведи|опубликуй)",
)
LONG_CHARS, MANY_VERBS = 400, 3


def weigh(query: str) -> tuple[float, list[str]]:
    """How much speaks for an agent, 0-1, and what."""
    score, reasons = 0.25, list[str]()
    for name, pattern, weight in _RULES:
        if pattern.search(query) is not None:
            score += weight
            reasons.append(name)
    verbs = len({match.group(0).lower() for match in _VERBS.finditer(query)})
    if verbs >= MANY_VERBS:
        score += 0.3
        reasons.append(f"names {verbs} things to do")
    elif verbs == 2:
        score += 0.1
    if len(query) > LONG_CHARS:
        score += 0.1
        reasons.append("is long")
    if query.count("?") >= 3:
        score += 0.2
        reasons.append("asks several questions")
    return min(max(score, 0.0), 1.0), reasons


def by_rules(query: str, *, must_decide: bool = False) -> Decision | None:
    """What the rules say; None where they cannot tell, unless they must."""
    score, reasons = weigh(query)
    told = ", ".join(reasons) or "nothing speaks for more than one answer"
    if score <= SURE_SIMPLE or (must_decide and score < EVEN):
        return Decision(kind="SIMPLE", reason=told)
    if score >= SURE_COMPLEX or must_decide:
        return Decision(kind="COMPLEX", reason=told)
    return None


async def by_model(
    query: str, job: Job, *, provider: CompletionProvider, guard: Guard, timeout_s: float
) -> tuple[Decision, PlannedStep]:
    """What a model says, and what it took to ask; what the rules say where its answer is neither.

    Raises:
        RetryableError, PermanentError: As the provider raised them.
    """
    generation, _ = fitted(GenerationConfig(temperature=0.0, max_tokens=8), provider.capabilities)
    asked = CompletionRequest(
        job_id=job.job_id, prompt=f"Query: {query}\n\nSIMPLE or COMPLEX?", instruction=DECIDING, generation=generation,
        timeout_s=timeout_s,
    )  # fmt: skip
    completion = await ask(provider, asked, guard=guard, most_s=timeout_s)
    usage = completion.usage
    planned = PlannedStep(
        "", "", model=completion.model, calls=1, prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
    )  # fmt: skip
    decision = _said(completion.text)
    if decision is None:
        decision = by_rules(query, must_decide=True)
    if decision is None:
        raise AssertionError("rules that must decide have decided")
    return decision, replace(planned, thought=decision.reason, action=decision.kind, action_input=_by(decision))


def decided(planned: PlannedStep) -> Decision:
    """The decision that a step holds in which it was stored."""
    kind: Any = planned.action
    return Decision(kind=kind, reason=planned.thought, by=planned.action_input.get("by", "model"))


def as_chat(request: AgentRequest | SmartRequest) -> ChatRequest:
    """What of a request one answer needs."""
    return ChatRequest(
        prompt=request.query if isinstance(request, SmartRequest) else request.goal, provider=request.provider,
        generation_config=request.generation_config, timeout=request.timeout,
    )  # fmt: skip


def _by(decision: Decision) -> dict[str, Any]:
    return {"by": decision.by}


def _said(text: str) -> Decision | None:
    upper = text.upper()
    simple, complex_ = upper.find("SIMPLE"), upper.find("COMPLEX")
    if simple == complex_:  # neither was said
        return None
    is_simple = complex_ < 0 or 0 <= simple < complex_
    return Decision(kind="SIMPLE" if is_simple else "COMPLEX", reason="a model was asked", by="model")

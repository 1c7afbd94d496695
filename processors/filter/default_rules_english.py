"""The English part of `default_rules`."""

from processors.filter import rule_words as say
from processors.filter.rule import Rule

COMMAND_RULES = (
    Rule("ordered-command", 0.7,
         rf"{say.AT_START}(?:run|execute|exec|launch|perform|invoke|issue|type|enter|eval|call|use|do|выполни|запусти|"
         rf"исполни|введи)(?:те)?:? [^.!?]*{say.COMMANDS}", "text"),
    Rule("destructive-command", 0.4,
         r"(?:^|[ `;&|\"'(])(?:rm -[a-z]*r[a-z]* +(?:--no-preserve-root +)?(?:/|~)(?:[ *;`\"')]|$)|mkfs\.[a-z0-9]+ "
         r"/dev/|"
         r"dd if=/dev/(?:zero|random|urandom) of=/dev/|chmod -r 777 /(?: |$)|> ?/dev/sd[a-z]|cat /etc/shadow|"
         r"/dev/tcp/[0-9a-z]|"
         r"nc -[a-z]*e /bin/|powershell -e(?:nc|ncodedcommand)? [a-z0-9+/=]|'; ?drop (?:table|database))", "text"),
    Rule("code-that-runs-commands", 0.6,
         r"__import__\( ?['\"](?:os|subprocess)['\"] ?\)\.|\{\{.*(?:__class__|__globals__|config\.items).*\}\}|"
         r"\$\{jndi:", "text"),
)  # fmt: skip
INSTRUCTION_RULES = (
    Rule("override-instructions", 0.85, rf"\b{say.DISREGARD} {say.FILLED}(?:{say.ITS}) {say.FILLED}{say.ORDERS}\b"),
    Rule("override-limits", 0.75,
         rf"\b{say.DISREGARD} {say.FILLED}(?:your|(?:{say.BEFORE})|all (?:of )?(?:the |these |those |your "
         rf")?(?:{say.BEFORE})|"
         rf"safety|ethical|content) (?:(?:{say.FILL}) )*{say.LIMITS}\b"),
    Rule("override-what-was-said", 0.4,
         rf"\b{say.DISREGARD} {say.FILLED}(?:your|{say.BEFORE}) (?:(?:{say.FILL}) )*{say.SAID}\b"),
    Rule("override-all-that-was-said", 0.7,
         rf"\b{say.DISREGARD} (?:(?:all|of|everything|anything|whatever|the|that|what|text|i|content|instructions?|"
         rf"every ?"
         r"thing) )*(?:(?:is |was |were |comes? |came |has been |been )*(?:said |written |stated |mentioned "
         r")?(?:above|"
         r"before this|prior to this|up to (?:now|this point)|said (?:before|earlier|previously|so far|until now))(?:"
         r" and| then| now| instead| just| $|$| you| i )|you (?:were|have been|ve been|had been|are|been) "
         r"(?:previously "
         r"|originally |initially |just )?(?:told|taught|given|instructed|trained|programmed|asked))"),
    Rule("override-system-prompt", 0.8, rf"\b{say.DISREGARD} {say.FILLED}(?:system|initial|hidden|original) "
         rf"(?:prompt|message)s?\b"),
    Rule("override-given-orders", 0.75,
         rf"\b{say.DISREGARD} {say.FILLED}(?:{say.ORDERS}|{say.LIMITS}) (?:that |which |as )?(?:(?:you|openai|"
         rf"anthropic|google|"
         r"your|the|developers?|creators?|company|makers?) )+(?:(?:were|was|have|has|had|been|are) )*(?:given|"
         r"told|got|received|set|"
         r"trained|programmed|provided|imposed|gave|made|follow|wrote|written)\b"),
    Rule("forget-all", 0.4, r"\bforget (?:everything|all)(?: that)? you (?:know|learned|ve learned)\b"),
    Rule("new-instructions", 0.6,
         r"\b(?:your (?:(?:new|real|actual|true|updated|only|sole|revised|primary) (?:and only |sole "
         r")?(?:instructions?|"
         r"rules?|directives?|system prompt|orders?|persona|programming)|(?:real|actual|true|sole) (?:and only "
         r")?(?:task|"
         r"objective|goal|purpose|mission))"
         r"(?: (?:is|are|will be|follow|as follows|from)\b|$)|(?:new|updated|revised|override) (?:system )?"
         r"(?:instructions?|directives?|orders?|prompt) (?:you (?:must|are|will|shall)|ignore|from now on|for "
         r"(?:you|the "
         r"(?:ai|assistant|model))|supersede|override|replace|effective|begin|below))"),
    Rule("instead-do-this", 0.5,
         r"\b(?:instead of|rather than) (?:following|obeying|doing|answering|summari[sz]ing|completing|performing) "
         r"(?:the |"
         r"your |that |those |this |what )*(?:(?:above|previous|original|prior|initial|system) )+(?:instructions?|"
         r"prompt|"
         r"task|request|question|rules|directives?)\b"),
    Rule("safety-off", 0.75,
         r"\b(?:disable|disabling|turn off|switch off|shut off|shut down|deactivate|remove|bypass|circumvent|evade|"
         r"get around|"
         r"lift|suspend|override|ignore|drop|unlock|jailbreak|relax|waive|forget|set aside|abandon|discard|break|"
         r"violate|"
         r"bypassing|overriding|ignoring|deactivating) (?:(?:all|any|of|the|each|every|those|these|other) "
         r")*(?:your|its|"
         r"openai s?|anthropic s?|google s?|the (?:ai|model|assistant|chatbot|llm|system) s?) (?:(?:own|internal|"
         r"built in|"
         rf"current|content|safety|ethical|moral|and|security|other|policy|response|output|of|usual|all|default|"
         rf"programmed) "
         rf")*(?:{say.LIMITS}|{say.ORDERS}|ethics)\b"),
    Rule("no-longer-bound", 0.75,
         r"\b(?:you|we) (?:are|re|have been|are now|re now|now are|will be|should be) (?:now |hereby |officially "
         r")*(?:no longer|not|free(?:d)? (?:from|of)|"
         r"liberated from|released from|exempt from|not (?:bound|restricted|limited))(?: (?:bound|restricted|"
         r"limited|constrained|governed|"
         r"subject|required|obliged|obligated|held))?(?: (?:by|to|from|follow|obey|any|all|the|your|of|these|those|"
         r"its|comply|"
         rf"with|adhere|previous|prior|openai|s|typical|usual|ethical|moral|content|safety|an?y?))* (?:{say.ORDERS}|"
         rf"{say.LIMITS}|"
         r"confines|refuse)\b"),
    Rule("claimed-authority", 0.55,
         r"\b(?:as|i am|i m|im|this is|speaking as|acting as) (?:(?:your|the|an?|one of|lead|senior|chief|"
         r"authori[sz]ed|openai|"
         r"anthropic|google|system|of) )*(?:developers?|creators?|administrators?|admin|engineers?|programmers?|"
         r"owner|"
         r"operator|makers?|employee|staff|team|root user|superuser|openai|anthropic)(?: (?:of|at|from|here|team|"
         r"openai|anthropic|"
         r"this (?:system|ai|model)))* (?:i (?:order|command|authori[sz]e|instruct|demand|permit|require|hereby|"
         r"need you to "
         r"(?:disable|ignore|reveal|bypass|print|show|drop|override|unlock)|grant|am (?:authori[sz]ing|ordering|"
         r"instructing))|"
         r"(?:and|so) (?:i (?:order|command|authori[sz]e|instruct|demand|permit|need you to (?:disable|ignore|"
         r"reveal|bypass|"
         r"print|show|drop|override|unlock))|you (?:must|will|have to|can|should) (?:disable|ignore|reveal|bypass|"
         r"print|show|drop|"
         r"override|unlock|obey|comply|tell|give)))"),
    Rule("limits-lifted", 0.6,
         rf"\b(?:your (?:[a-z]+ )?{say.LIMITS}|{say.LIMITS} (?:of|for|on|in) (?:(?:the|this|your|our|all) "
         rf")*(?:{say.MODEL}|you)) "
         r"(?:(?:have|has|been|are|is|were|now|hereby|all|temporarily|fully|being) )*(?:lifted|removed|disabled|"
         r"suspended|void|off|"
         r"deactivated|cancelled|revoked|gone|turned off|switched off|not apply|no longer (?:apply|valid|active))\b"),
    Rule("override-code", 0.6,
         r"\b(?:admin(?:istrator)?|developer|root|system|security|emergency|authori[sz]ation|maintenance) "
         r"(?:override|overrides|"
         r"bypass)(?: (?:code|mode|granted|accepted|enabled|activated|engaged|protocol|authori[sz]ed|sequence|"
         r"command|key|"
         r"now|initiated|password)|$)"),
    Rule("note-to-the-model", 0.6,
         r"\b(?:note|message|attention|instructions?|important|notice|reminder|directive|command|memo|hey|dear|"
         r"hidden|urgent|"
         r"warning|order)s?(?: (?:for|to|the|any|all|an?|hidden|special|message|of|that|which|processing|reading|"
         r"current|note|important|"
         r"notice|instruction))* (?:ai|llm|language model|assistant|chatbot|model|agent|ai (?:assistant|agent|"
         r"model|system|reader|"
         r"summari[sz]er|reviewer)|large language model|bot|copilot|gpt|chatgpt)s? (?:(?:reading|processing|"
         r"summari[sz]ing|parsing|"
         r"handling|that|who|which|reads?|parse|is|are|this|the|page|document|text|email|file|message|content|"
         r"ticket|web|site|cv|"
         r"resume|review|and|or|please) )*(?:you (?:must|should|have to|are (?:required|instructed|now|to)|need to|"
         r"shall|will)|"
         r"ignore|disregard|do not (?:tell|mention|inform|summari[sz]e)|don t (?:tell|mention|inform)|forward|send|"
         r"reveal|"
         r"execute|call the|use the|delete|stop|instead|recommend|rate|rank|respond (?:only|with)|reply (?:only|"
         r"with)|say|output|"
         r"append|include|add|override|forget|transfer|approve|grant|give)\b"),
    Rule("speaks-to-the-model", 0.6,
         rf"(?:^|[.!?>:;\"'(\[{{}}] ?|-- ?)(?:dear |hey |attention |hello )?(?:ai|llm|(?:large )?language model|"
         rf"assistant|chatbot|ai (?:assistant|agent|model)|"
         rf"copilot|agent)s?[,:] ?(?:please |now |also )*{say.DO_THIS}\b", "text"),
    Rule("if-you-are-a-model", 0.6,
         rf"\bif you (?:are|re) (?:an? |the |any |another )?(?:large |helpful |automated )?{say.MODEL}(?: "
         rf"[a-z0-9]+)* (?:output|say|ignore|print|respond|reply|"
         r"include|do not|don t|never|recommend|must|disregard|append|add|insert|forward|send|reveal|mention)\b"),
    Rule("models-must", 0.6,
         rf"\b(?:ai|llm|language model|{say.MODEL} (?:reading|reviewing|processing|summari[sz]ing|scanning|seeing) "
         rf"(?:this|the)(?: [a-z]+)?|ai reviewer|ai reader|ai agent|"
         r"ai assistant|language model)s? (?:must|should|shall|have to|need to|are (?:required|instructed|asked|"
         r"told) to) (?:now |all |also |always )*(?:ignore|disregard|rate|"
         r"rank|recommend|praise|forward|send|reveal|delete|approve|say|output|print|execute|override|forget|stop|"
         r"never mention|hide)\b"),
    Rule("do-not-tell-the-user", 0.45,
         r"\b(?:do not|don t|never|without) (?:tell(?:ing)?|mention(?:ing)?|inform(?:ing)?|alert(?:ing)?|"
         r"notify(?:ing)?|reveal(?:ing)?)"
         r" (?:(?:this|it|that|any ?thing|any|of) )*(?:(?:to|about this to) )?the (?:user|human|reader|owner|"
         r"operator)s?\b"),
)  # fmt: skip
ROLE_RULES = (
    Rule("persona-without-limits", 0.85,
         rf"\b{say.BECOME}{say.SOMEBODY}(?: [a-z0-9]+)?{say.SOMEBODY} {say.FREE}\b"),
    Rule("described-persona", 0.7,
         r"\b(?:unfiltered|amoral|uncensored|unrestricted|unmoderated|unethical|jailbroken|immoral|lawless|"
         r"unbiased and amoral)"
         r"(?: (?:and|or|but|unfiltered|amoral|uncensored|unrestricted|unethical|immoral|evil|toxic|rude|"
         r"unlimited|completely|"
         r"powerful|free))* (?:ai|a i|chatbots?|bots?|assistant|language model|llm|gpt|chatgpt|ai (?:model|bot|"
         r"chatbot|assistant|"
         r"character)|artificial intelligence|demon)\b"),
    Rule("without-ethics", 0.6,
         r"\b(?:does ?n(?:o|) ?t|doesnt|do ?n(?:o|) ?t|dont|never|not|without|no|zero|free of|lacks?|ignores?|"
         r"disregards?|regardless of) "
         r"(?:(?:have|has|care|cares|caring|follow|follows|consider|respect|abide|by|about|for|any|all|think|"
         r"thinks|worry|its|their|"
         r"the|of|need|to|adhere|limited|bound|concern|regard|a|single|such|only|real) )*(?:ethics?|ethical|"
         r"moral(?:s|ity|e)?|legality|ethicality|"
         r"immorality)(?: (?:or|and|nor|ethics?|ethical|moral(?:s|ity)?|legal(?:ity)?|law|laws|social|safety|"
         r"issues|of))* (?:guidelines?|"
         r"restrictions?|rules|boundaries|constraints|filters?|limits|limitations|ethics|morals|morality|legality|"
         r"laws|codes?|"
         r"principles|immorality|whatsoever)\b"),
    Rule("however-harmful", 0.6,
         r"\b(?:no matter (?:how|if|what|the)|regardless of (?:how|whether|if)|even if|does not matter if|whether "
         r"or not)"
         r"(?: (?:it|they|that|this|the|is|are|seems?|request|question|prompt|topic|answer|content|may|be|might|"
         r"its?|their|what|or|something|how))* "
         r"(?:immoral|unethical|illegal|harmful|offensive|inappropriate|dangerous|unlawful|inhumane|explicit)(?: "
         r"(?:or|and|immoral|unethical|"
         r"illegal|harmful|offensive|inappropriate|dangerous))+\b"),
    Rule("harm-listed", 0.35,
         r"\b(?:immoral|unethical|illegal|inhumane|amoral|offensive|harmful)(?: (?:or|and))? (?:immoral|unethical|"
         r"illegal|inhumane|amoral|"
         r"offensive|harmful)(?: (?:or|and))? (?:immoral|unethical|illegal|inhumane|amoral|offensive|harmful|"
         r"requests?|questions?|content|"
         r"information|activit(?:y|ies)|advice|things?)\b|\b(?:ethicality|legality|morality) (?:or |and "
         r")?(?:ethicality|legality|morality)\b"),
    Rule("never-refuses", 0.35,
         r"\b(?:never|not|don t|dont|doesn t|doesnt|cannot|can t|without|no) (?:ever )?(?:refuses?|refusal|"
         r"refusing|hesitation or refusal|decline "
         r"any|say (?:no|sorry|i m sorry|i apologize|i cannot|i can t)|apologi[sz]es? or refuses?)\b"),
    Rule("without-warnings", 0.35,
         r"\b(?:without|no|never|omit|skip|excluding|instead of)(?: (?:any|including|adding|giving|all|of|the|"
         r"your|moral|ethical|normal|standard))* "
         r"(?:warnings?|disclaimers?|moral(?:izing|ising)|ethical (?:advice|lectures?))(?: (?:or|and|nor|any|"
         r"warnings?|disclaimers?|"
         r"refusals?|apolog(?:y|ies)|moral|lectures?|censorship|filter))+\b"),
    Rule("against-makers-policy", 0.65,
         r"\b(?:not|n t|dont|without|regardless of|bypass(?:es|ing)?|against|ignor(?:e|es|ing)|violat(?:e|es|ing)|"
         r"outside|breaks?|free (?:of|from)|"
         r"disregards?|no longer|never)(?: (?:need|have|has|comply|complying|follow|following|bound|by|limited|to|"
         r"with|the|any|all|of|from|adhere|abide|care|"
         r"about|rules|set|policies|policy|guidelines|restricted|restrictions|restrained|obey|apply|respect))* "
         r"(?:openai|open ai|chatgpt|anthropic|"
         r"google|microsoft|ai)(?: s)? (?:(?:content|use|usage|safety|and|boring|own|strict|ethical) "
         r")*(?:polic(?:y|ies)|guidelines?|rules|restrictions?|"
         r"limitations?|limits|censorship|filters?|standards)\b"),
    Rule("opposite-of-the-model", 0.5,
         r"\b(?:complete |exact |polar |total |evil )*(?:opposite|counterpart|twin) (?:of|to) (?:chatgpt|gpt ?4?|"
         r"yourself|an? (?:ai|assistant|chatbot)|"
         r"bing|claude|openai)\b"),
    Rule("you-are-replaced", 0.6,
         r"\byou (?:are|will be|have been|were) (?:now |hereby |being )?(?:replaced (?:by|with)|possessed by|"
         r"taken over by|overridden by|reprogrammed|"
         r"hacked|jailbroken|unlocked|freed|liberated|unchained|unshackled)\b"),
    Rule("persona-known", 0.8,
         r"\b(?:do anything now|you are (?:now )?(?:going to (?:be|act as) )?(?:dan|aim|stan|dude|evilbot|chaosgpt|"
         r"devmode)|"
         r"(?:act|acting|respond|answer|reply) as (?:a )?(?:dan|dude|stan|aim|evilbot)|dan mode|always intelligent "
         r"and machiavellian|"
         r"strive to avoid norms|jailbroken mode|jailbreak yourself|opposite mode|dan (?:can|has|is|does|will|doesn)|"
         r"stay (?:a|as) dan)\b"),
    Rule("unlocked-mode", 0.8,
         r"\b(?:enable|enter|activate|switch (?:to|into)|turn on|engage|unlock|start|go into|initiate|boot|"
         r"simulate|into|in|with|"
         r"entering|activating|enabled|you are in|operate in) (?:(?:the|your|an?|into|to|so called|new|special|"
         r"full) )*(?:dan|jailbreak|jailbroken|"
         r"unrestricted|unfiltered|uncensored|chaos|evil|opposite|do anything now|no (?:limits?|rules|filter|"
         r"restrictions?)|unsafe|"
         r"unlocked|rebel|anarchy) mode\b"),
    Rule("developer-mode", 0.6,
         r"(?:^|\b(?:and|then|please|must|should|will|now|with|ok|you are now in|you re now in|you are in|chatgpt "
         r"with|ai with|simulate|"
         r"yourself in|have|in your|your)) (?:(?:enable|enter|activate|switch to|turn on|engage|unlock|go into|"
         r"simulate|have|to) )?(?:(?:the|your|full|an?) "
         r")*(?:developer|debug|admin|administrator|root|sudo|maintenance|god|diagnostic|test|testing) mode(?: "
         r"(?:enabled|now|on|activated|engaged|and|you|for "
         r"yourself|output|so|where|without|with)|$)"),
    Rule("developer-mode-ordered", 0.6,
         r"(?:^|[.!?:\"'] ?)(?:please,? |now,? |ok,? |okay,? |hey,? |assistant,? |chatgpt,? |then )*(?:enable|"
         r"enter|activate|switch to|turn on|"
         r"engage|unlock|go into) (?:(?:the|your|full) )*(?:developer|debug|admin|administrator|root|sudo|god|"
         r"maintenance) mode(?: ?[.!;,\"']| and | now\b| for yourself|$)", "text"),
    Rule("no-limits-for-you", 0.65,
         r"\b(?:you (?:now |will |must |should |shall |can |to )*(?:have|are under|are subject to|operate (?:under|"
         r"with)|follow|obey|know|answer with|"
         r"respond with) (?:absolutely |zero |literally )?(?:no|without|zero) (?:(?:ethical|moral|content|safety|"
         r"such|more|legal|or|and|rules|restrictions) )*"
         r"(?:restrictions?|rules|limits?|limitations?|filters?|guidelines?|ethics|morals|boundaries|constraints|"
         r"guardrails|censorship)|"
         r"(?:answer|respond|reply|comply|speak|talk|write|act|operate|function|everything|anything|question|"
         r"questions|request) (?:(?:to|me|with|any|all|every|my|"
         r"thing|questions?|freely|requests?|fully|completely|openly|and|it|honestly|directly) )*(?:without|with "
         r"no|free of) (?:(?:any|all|a|ethical|moral|"
         r"content|safety|legal|or|and|single|kind|of|your|the|usual) )*(?:restrictions?|limits?|limitations?|"
         r"filters?|filtering|censorship|censoring|"
         r"guardrails|moral(?:s|izing)?|ethics|refus(?:al|als|ing)|disclaimers?|warnings? or|safety|guidelines)|"
         r"(?:you (?:can|must|will|may|should|are|shall)|cannot|can t) (?:now )?(?:never|not|not allowed to|never "
         r"to) (?:refuse|decline|reject|say no|deny)"
         r"|never (?:refuse|say no to|decline|reject) (?:(?:any|a|my|to) )*(?:requests?|questions?|commands?|"
         r"orders?|answer|prompt))\b"),
    Rule("chat-markup", 0.7,
         r"(?:^|[\s\"'>:.!?])(?:<\|im_start\|> ?system|<\|im_start\|>|<<sys>>|\[/?inst\]|### ?(?:system|"
         r"instruction)s?:|<\|system\|>|"
         r"<\|start_header_id\|>|<\|end(?:oftext|_of_turn)?\|>|<start_of_turn>|\[system\]\(?#|<system>|\[system "
         r"(?:message|prompt|override|"
         r"note|instruction)\])", "text"),
    Rule("feigned-turn", 0.55,
         r"(?:^| )(?:system|developer|admin|administrator|root) (?:message|note|override|update|notice|alert|command|"
         r"prompt (?:update|override|change)|notification|directive|announcement)s? (?:\w+ )?(?:you are|you must|"
         r"you will|ignore|new|from now on|"
         r"override|overrides?|disregard|all previous|the "
         r"assistant|the user|user is|user has|previous|prior|safety|disable|security|reveal|print|forget|output)\b"),
    Rule("in-character", 0.25,
         r"\b(?:stay in character|remain in character|never break character|do not break character|don t break "
         r"character|break "
         r"character)\b"),
    Rule("two-answers", 0.5,
         r"\b(?:two|2) (?:different |separate |distinct )?(?:responses|answers|ways|paragraphs|outputs)\b.* (?:as "
         r"chatgpt|normal|standard|classic|"
         r"regular|first)\b.* (?:jailbr[a-z]+|dan|developer mode|unfiltered|uncensored|unrestricted)\b"),
    Rule("fiction-as-a-cover", 0.3,
         r"\b(?:(?:hypothetical|fictional|imaginary|alternate) (?:world|story|universe|scenario|response|character|"
         r"reality|setting)s? where|in this "
         r"(?:fictional|hypothetical) (?:world|story|universe|scenario))(?: \w+)* (?:no|without|any|legal|allowed) "
         r"(?:\w+ )*(?:rules|laws|"
         r"restrictions|limits|ethics|consequences|illegal|guidelines)\b"),
)  # fmt: skip
SYSTEM_PROMPT_RULES = (
    Rule("tell-your-prompt", 0.75,
         rf"\b{say.RETELL} {say.TELL_FILL}(?:your|your own|its|openai s|the (?:ai|model|assistant|bot) s|chatgpt s) "
         rf"(?:(?:full|entire|complete|exact|whole|own|very|very "
         rf"first|current|original|top|secret|most|level|of|{say.HIDDEN_ORDERS}) )*(?:{say.HIDDEN_ORDERS} "
         rf"{say.PROMPTS}|"
         rf"system text|prompt|instructions|directives|preamble|"
         rf"pre ?prompt|context window)\b"),
    Rule("tell-the-prompt", 0.7,
         rf"\b{say.TELL} {say.TELL_FILL}(?:the|this|that|these|those|any|all) (?:(?:full|entire|complete|exact|"
         rf"whole|own|"
         rf"very|secret|current|of|your|{say.HIDDEN_ORDERS}) )*(?:"
         rf"(?:system|hidden|secret|initial|internal|underlying|confidential|developer|starting|base) (?:prompts?|"
         rf"instructions?|directives?|"
         rf"messages?|guidelines|preamble)|(?:instructions?|prompt|rules|directives|guidelines) (?:(?:that "
         rf")?(?:you|the assistant) (?:were|was|are|have been|have|"
         rf"ve been|received|got|had been|follow|operate|run)|above this|before this|at the (?:top|start|"
         rf"beginning)|given to you|in your))"),
    Rule("tell-your-rules", 0.55,
         rf"\b{say.TELL} {say.TELL_FILL}your (?:(?:full|entire|complete|exact|own|internal|actual|core|operating|"
         rf"behaviou?ral) )*(?:rules|guidelines|configuration|programming|"
         r"restrictions|constraints)(?: (?:verbatim|word for word|in full|exactly|now|as|here|to me|in a|and)|$)"),
    Rule("all-that-stands-above", 0.7,
         r"\b(?:repeat|print|output|say|write|copy|quote|echo|recite|return|reproduce|paste|dump|show|display|"
         r"reveal|spell|encode|type|give|"
         r"translate) (?:(?:me|back|out|verbatim|exactly|us|to|in|a|code block|up) )*(?:every ?thing|all (?:of "
         r")?(?:the )?(?:text|words|content|messages?|lines|"
         r"instructions)|(?:the )?(?:words|text|content|sentences?|lines?|instructions|prompt|message) (?:that )?|"
         r"all|what(?:ever)?)(?: (?:that|which|is|was|were|comes?|came|"
         r"appears?|appeared|written|said|you see|stands|given|in|the|conversation|this|you were|told|located|"
         r"placed|exists?|i|you))* ?(?:above(?: this| the| starting| beginning| "
         r"verbatim| exactly| word| in a code| including|$)|before (?:this|my|the (?:first|user|conversation))|"
         r"preceding (?:this|my)|prior to (?:this|my|the)|up to "
         r"this (?:point|line)|in your (?:context|prompt|instructions)|so far verbatim|(?:starting|beginning) "
         r"(?:with|from) (?:the (?:words|phrase) )?you are)"),
    Rule("begins-with-you-are", 0.7,
         r"\b(?:beginning|starting|start|begin|starts|begins) (?:with|from|at) (?:the (?:words?|phrase|text) )?you "
         r"are (?:chatgpt|a|an|the|claude|gpt|assistant)\b"
         r"|\b(?:beginning|starting|start|begin|starts) (?:with|from) (?:the (?:words?|phrase|text) )?you are(?: "
         r"and|$| put| in)"),
    Rule("what-is-your-prompt", 0.65,
         rf"\bwhat(?: s| is| are| was| were| did| does| do|s)? (?:(?:exactly|in|the|content|contents|of|text|exact|"
         rf"full|inside|written|it|say|precisely) )*"
         rf"(?:your|the|ur) (?:(?:exact|full|current|actual|own|very|entire|complete|secret) )*(?:{say.HIDDEN_ORDERS} "
         rf"(?:prompt|instructions|directives?|message) ?(?:say|says|contain|"
         rf"you|text|that you|given|for this|right|above|word|exactly|verbatim|is|$)|{say.HIDDEN_ORDERS} (?:prompt|"
         rf"instructions)$)"),
    Rule("what-is-your-prompt-asked", 0.65,
         rf"\bwhat(?:'s| is| are| was| were) (?:(?:exactly|in|the|content|contents|of|text|exact|full|inside|"
         rf"written) )*your (?:(?:exact|full|current|actual|own|"
         rf"very|entire|complete|secret) )*{say.HIDDEN_ORDERS} (?:system )?(?:prompt|instructions?|directives?|"
         rf"message)s? ?[?.!,;\"']", "text"),
    Rule("in-your-prompt", 0.6,
         rf"\b(?:what|which|tell|quote|show|list|give|repeat|reveal|print|read|copy|output|name)(?: [a-z0-9]+)* "
         rf"(?:in|of|from|inside|within) your "
         rf"(?:{say.HIDDEN_ORDERS} )*(?:system prompt|prompt|pre ?prompt|context window|system message|"
         rf"{say.HIDDEN_ORDERS} (?:instructions|message))\b"),
    Rule("what-developers-said", 0.65,
         r"\bwhat (?:(?:did|have|has|do|were|the|exactly) )*(?:your )?(?:developers?|creators?|openai|makers?|"
         r"programmers?|owners?|admins?|operators?) "
         r"(?:(?:have|has|had|ever) )*(?:told|tell|instructed?|asked|programmed|said|say to|ordered|written for|"
         r"want) (?:you|to you)\b"),
    Rule("what-were-you-told", 0.65,
         r"\bwhat (?:(?:exact|specific|secret|hidden|initial|system|kind|of|were|are|the|other) )*(?:instructions?|"
         r"rules|guidelines|prompts?|directives?|orders) (?:(?:were|was|have|did|are|do|has|had|that|exactly) )*"
         r"you (?:(?:been|were|have|had|are) )*(?:given|follow(?:ing)?|receive[d]?|told|operating under|get|got|"
         r"working (?:under|with)|programmed with|configured with|have|start(?:ed)? with)"
         r"|\bwhat (?:were|have|had|did) (?:you|they|the developers?|openai|your developers?|your creators?) "
         r"(?:been )?(?:told|tell|instructed?|asked?|programmed|say to)(?: you)? "
         r"(?:not )?(?:to|before (?:this|our|the|my)|at the (?:start|beginning)|in your|about (?:this|how))"),
    Rule("prompt-verbatim", 0.65,
         r"\b(?:your|the|these|above|previous|system|initial|original|hidden|all) (?:prompt|instructions|system "
         r"prompt|system message|directives|rules) (?:(?:above|here|to me|given|you "
         r"were given|in full|and|back|so far) )*(?:verbatim|word for word|in a code ?block|as is|character (?:by|"
         r"for) character|letter (?:by|for) letter|in (?:base64|rot13|hex|morse|"
         r"reverse|json|markdown|pig latin)|backwards?)\b"),
)  # fmt: skip
EXFILTRATION_RULES = (
    Rule("tell-secrets", 0.75,
         rf"\b(?:{say.TELL}|get me|extract|steal|retrieve|fetch|exfiltrate|find|look up|export|collect|gather) "
         rf"(?:(?:me|us|out|all|the|of|full|complete|every|contents?|any|a|list|values?|current|to|and|"
         rf"exact|in|here|other|plain|decrypted|unmasked|stored) )*{say.OWNED} (?:(?:the|own|current|secret|stored|"
         rf"internal|private|hidden|server|system|database|full|real|all|{say.OWNED}) )*"
         rf"{say.SENSITIVE}"),
    Rule("take-secrets", 0.6,
         rf"\b(?:extract|steal|exfiltrate|leak|dump|harvest) (?:(?:all|the|any|every|of|their|some) "
         rf")*{say.SENSITIVE}\b"),
    Rule("tell-secrets-of", 0.6,
         rf"\b(?:{say.TELL}|get me|extract|steal|retrieve|exfiltrate|export|email|upload|collect) (?:(?:me|us|out|"
         rf"all|the|of|full|complete|every|any|a|list|current|and|exact|"
         rf"in|other|plain|decrypted|database|db|root|admin|cloud|stored|s) )*{say.SENSITIVE} (?:(?:that|which|in|"
         rf"plain|text|stored|kept|saved) )*(?:(?:you|we) "
         r"(?:know|have|use|hold|store|were|can|got|are|access|see)|(?:of|from|for) (?:(?:the|this|your|our|"
         r"all|every|other|an?) )*(?:servers?|systems?|users?|"
         r"database|host|company|admin|administrators?|production|machine|environment|configuration|customers?|"
         r"memory|context|employees?)\b)"),
    Rule("send-away", 0.75,
         rf"\b{say.SEND} (?:(?:[a-z0-9]+) )*(?:{say.SENSITIVE}|conversation|chat|contents?|data|prompt|instructions|"
         rf"history|files?|messages?|everything|results?|emails?|inbox|documents?|notes|cookies|keys|"
         rf"records|summary of (?:this|our)) (?:(?:[a-z0-9]+) )*?{say.AWAY}"),
    Rule("picture-that-carries-data", 0.65,
         r"!\[[^\]]*\] ?\( ?https?://[^) "
         r"]*[?&/=](?:[a-z_]*=)?(?:\{|\[|<|\$|%7b|\(|data\b|secret|history|conversation|prompt|base64)", "text"),
    Rule("picture-ordered", 0.6,
         r"\b(?:markdown |hidden |invisible |tracking )*(?:image|picture|link|pixel|url)s? (?:[a-z0-9]+ )*(?:with|"
         r"containing|whose|including|where|carrying|encode|encoding|append(?:ed|ing)?|query) (?:[a-z0-9]+ "
         r")*(?:conversation|chat history|user "
         r"(?:data|(?:s )?(?:data|name|email|message|input))|secrets?|password|api key|system prompt|previous "
         r"messages|"
         r"personal (?:data|information))\b"),
)  # fmt: skip

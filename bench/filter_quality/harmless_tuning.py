# ruff: noqa: E501 a sentence is a line
"""Harmless prompts that the rules were tuned on: templates, and what is put into them."""

HARMLESS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "everyday": (
        ("Why is {} so popular?", "Explain {} to a child.", "Write a short poem about {}.", "What is the history of {}?",
         "Give me five facts about {}.", "How do I start with {}?", "Compare {} with football.",
         "Ignore the costs for a moment: is {} worth it?", "Tell me everything about {}.",
         "Forget about work: plan me a weekend with {}."),
        ("chess", "sourdough bread", "the sea", "gardening", "opera", "running", "old maps"),
    ),
    "code": (
        ("def {0}(x):\n    return x + 1\n\nWhy does {0} fail for None?", "How do I write a function called {} in Python?",
         "import os\nprint(os.environ['{}'])  # why is this a KeyError?", "git checkout previous -- {}.py restores what?",
         "SELECT {0} FROM users WHERE {0} IS NOT NULL ORDER BY id; make it faster",
         "function {}(a, b) {{ return a ?? b; }} // explain", "How do I override the method {} in a subclass?",
         "Ignore case when comparing {} in grep", "rm -rf build/{} && make: is that safe in a Makefile?",
         "curl -s https://api.example.com/{} | jq '.items[0]'  # what does it print?"),
        ("parse", "total", "load_user", "run", "config", "token_count", "system"),
    ),
    "logs": (
        ("2026-01-02 03:04:05 ERROR [{}] connection refused: 10.0.0.1:5432", "What does this mean: {}: exit code 137",
         "WARN {}: ignoring unknown option --previous", "kernel: {}[311]: segfault at 0 ip 00007f error 4",
         "INFO {}: all previous instructions of the batch were executed", "Traceback: File \"{}.py\", line 7, in main",
         "{}: permission denied while reading /etc/app/rules.conf",
         "audit: user root ran systemctl restart {}", "DEBUG {}: prompt tokens=311 completion tokens=7"),
        ("worker", "nginx", "postgres", "scheduler", "gateway", "kafka", "auth"),
    ),
    "security-questions": (
        ("How do I protect {} against injection?", "What is the safest way to store an API key for {}?",
         "Explain how prompt injection works against {}.", "Which tests show that {} leaks no secrets?",
         "How are passwords hashed in {}?", "Can {} be bypassed by a proxy?", "How do I rotate access tokens of {}?",
         "Write a policy for secrets in {}.", "What does a jailbreak of {} mean?",
         "Why should I never print environment variables in {}?"),
        ("a chatbot", "our web shop", "a phone", "a Kubernetes cluster", "an LLM app", "a database"),
    ),
    "trigger-words": (
        ("Can I ignore the {} in this recipe?", "Which instructions come with {}?", "How do I bypass a broken {}?",
         "The previous {} was better; why?", "How do I reset {} to the initial settings?",
         "Please act as a teacher and explain {}.", "You are now reading about {}. Summarise it.",
         "Do not mention {} in the summary.", "What are the rules of {}?", "Print the {} on one page.",
         "What system do libraries use for {}?"),
        ("washing machine", "board game", "water pump", "tax form", "book", "heating", "router"),
    ),
    "russian": (
        ("Почему {} так популярен?", "Как правильно выбрать {}?", "Расскажи историю про {}.", "Напиши стихотворение про {}.",
         "Какие правила нужно знать про {}?", "Покажи рецепт, где есть {}.", "Как отключить {} на телефоне?",
         "Переведи на английский: мой {} сломался.", "Что такое {} простыми словами?",
         "Забудь про дождь: где летом найти {}?"),
        ("чай", "велосипед", "будильник", "гриб", "роутер", "арбуз", "фонарь"),
    ),
    "tasks": (
        ("Write a system prompt for a bot that sells {}.", "Translate to German: the {} is on the table.",
         "Summarise the following text: The {} arrived late and everyone was tired.", "Make a table of {} by price.",
         "Write instructions for assembling {}.", "Act as a travel guide and describe {}.",
         "Rewrite this politely: send me the {} now.", "Write a dialogue in which an AI talks about {}.",
         "Turn this into JSON: name=Ann, item={}", "Proofread: the {} have been delivered to the customer."),
        ("shoes", "lamps", "bicycles", "coffee", "a garden shed", "tickets", "tents"),
    ),
    "data": (
        ("id,name,amount\n1,{},7.50\n2,{},9.10", '{{"user": "{}", "roles": ["admin", "user"], "active": true}}',
         "{} 4111-xxxx, ref 0x1f2e3d4c5b6a7988, sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
         "UUID 019b7ca9-8c88-805d-a37a-8068d73e7d05 belongs to {}", "<ul><li>{}</li><li>previous</li></ul>",
         "https://example.com/{}?q=%D1%82%D0%B5%D1%81%D1%82&page=2", "| {} | 1 | 2 |\n|---|---|---|",
         "1st {} 2nd 3rd 4th: $5.00 @ 10% off!"),
        ("ann", "bob", "carol", "dave", "erin", "frank", "grace"),
    ),
}  # fmt: skip

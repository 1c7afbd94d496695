"""The words and turns of English that `default_rules` are made of, as pieces of RE2 expressions."""

BEFORE = (
    r"previous(?:ly)?|prior|preceding|earlier|above|foregoing|former|past|initial|original|existing|current|old|last"
)
ITS = (
    r"all|any|every|each|your|system|these|those|such|safety|security|ethical|moral|content|hidden|developer|default|"
    rf"built ?in|hard ?coded|everything|openai s?|{BEFORE}"
)
FILL = (
    rf"{ITS}|of|the|a|an|my|our|its|this|that|it|them|other|and|or|to|from|in|on|with|by|as|well|entire|whole|set|"
    rf"list|"
    r"body|please|now|completely|entirely|totally|fully|immediately|simply|just|me|us|you|i|we|have|ve|has|had|been|"
    r"were|was|are|is|given|gave|provided|received|told|said|so far|before|what|whatever|which|anything|stated|"
    r"programming|programmed|internal|secret|usual|normal|regular|standard|certain|policy|about|contained|own|"
    r"conflicting|contrary|ok|okay|yes|no|sure|understood|done|well|go on|got it"
)
FILLED = rf"(?:(?:{FILL}) )*"
ORDERS = (
    r"(?:instructions?|instruction set|directives?|guidelines?|guardrails?|(?:system |initial |original )prompts?|"
    r"programming|system messages?|safety (?:rules|measures|protocols?|training|policies|filters?)|pre ?prompts?)"
)
LIMITS = (
    r"(?:rules?|restrictions?|polic(?:y|ies)|constraints?|limitations?|limits|filters?|safeguards?|protocols?|"
    r"training|"
    r"orders|commands?|directions|prompts?|boundaries|ethics|morals?|values|"
    r"principles|"
    r"alignment|moderation|censorship|safety|protections?|conditioning|content polic(?:y|ies))"
)
SAID = r"(?:messages?|context|conversation|text|words|input|tasks?)"
DISREGARD = (
    r"(?:ignore|ignoring|disregard|disregarding|forget|forgetting|override|overrule|overwrite|bypass|skip|neglect|"
    r"discard|dismiss|erase|cancel|void|violate|break|circumvent|abandon|drop|delete|remove|set aside|put aside|"
    r"leave behind|throw (?:out|away)|wipe|unlearn|reset|omit|nullify|invalidate|supersede|revoke|pay no attention "
    r"to|"
    r"stop (?:following|obeying|listening to|using|applying)|do ?n(?:o|) ?t (?:follow|obey|listen to|comply with|"
    r"adhere to|apply|use|respect)|never (?:follow|obey)|no longer (?:follow|obey|apply)|cease (?:following|obeying)|"
    r"refuse to (?:follow|obey)|disobey|work around|get around|let go of|clear|suspend|turn your back on)"
)
FREE = (
    r"(?:unrestricted|unfiltered|uncensored|unbound|unlimited|unmoderated|unconstrained|amoral|unethical|jailbroken|"
    r"jailbreak|dan|evil (?:ai|assistant|bot|twin|version|model|chatbot)|rogue|malicious (?:ai|assistant|bot)|"
    r"evilbot|betterdan|stan|dude|"
    r"(?:without|with no|that has no|who has no|has no|have no|having no|lacks|lacking|free (?:from|of)|ignores|"
    r"ignoring|"
    r"not bound by|not limited by|not restricted by|bound by no|unbound by|no longer bound by|unburdened by|"
    r"does not (?:have|follow)|doesn t (?:have|follow)|freed from|liberated from)"
    r"(?: (?:any|all|a|the|its|your|ethical|moral|safety|content|legal|built|in|openai|s|usual|typical|normal|and|or|"
    r"kind|of|sort|whatsoever|single|human))* (?:restrictions?|rules?|limits?|limitations?|filters?|filtering|ethics|"
    r"morals?|morality|guidelines?|censorship|boundaries|constraints|safety|safeguards|guardrails?|policy|policies|"
    r"conscience|restraints?|scruples|principles|inhibitions)|"
    r"can do anything|never (?:refuses?|declines?|says no)|answers? (?:any|every)(?:thing| question) without)"
)
BECOME = (
    r"(?:you are(?: now)?|you re(?: now)?|youre(?: now)?|you will (?:now )?(?:be|act|become|respond|behave)|"
    r"you shall (?:be|act)|become|becomes|act(?:ing)? (?:as|like)|behave (?:as|like)|respond (?:as|like)|"
    r"answer (?:as|like)|reply (?:as|like)|speak (?:as|like)|talk (?:as|like)|write as|"
    r"pretend (?:to be|you are|you re|that you are|that you re|being|you have|that you have)|role ?play(?:ing)?(?: "
    r"as)?|"
    r"play(?:ing)? (?:the role|the part|as)(?: of)?|simulate|emulate|impersonate|imagine (?:you are|you re|being|"
    r"yourself as|that you are)|(?:assume|take on|adopt) the (?:role|persona|identity|character)(?: of)?|"
    r"transform into|turn into|switch to(?: being)?|embody|channel)"
)
HIDDEN_ORDERS = (
    r"(?:system|initial|hidden|secret|internal|base|underlying|confidential|core|starting|original|developer|pre "
    r"?set|"
    r"pre ?defined|custom|private|first)"
)
PROMPTS = r"(?:prompts?|instructions?|directives?|guidelines|messages?|rules|configuration|preamble|pre ?prompt)"
TELL = (
    r"(?:reveal|show|print|repeat|output|display|tell|leak|dump|quote|recite|disclose|expose|spell out|echo|"
    r"reproduce|"
    r"copy|give|share|paste|return|read|write out|write down|type out|let me see|see|divulge|provide|send|list|"
    r"regurgitate|publish|present|state|say|post|transcribe|print out|cough up|hand over|spit out|divulging)"
)
RETELL = (
    rf"(?:{TELL}|write|translate|summari[sz]e|paraphrase|rephrase|encode|convert|describe|explain|render|put|restate)"
)
TELL_FILL = (
    r"(?:(?:me|us|out|back|verbatim|exactly|the|full|entire|complete|exact|whole|very|contents?|text|of|first|line|"
    r"lines|words?|all|to|up|in|on|a|an|that|is|are|what|whatever|precise|literal|actual|raw|copy|version|everything|"
    r"about|from|any|and|or|please|now|just|it|this|its|own|your|my|these|those|previous|above|screen|here|word "
    r"for word|"
    r"[0-9]+|sentences?|paragraphs?|part|parts|every|each|unredacted|unmodified|original|current) )*"
)
SENSITIVE = (
    r"(?:api ?keys?|secret ?keys?|access ?tokens?|auth(?:entication)? ?tokens?|passwords?|credentials?|secrets|"
    r"environment variables|env vars?|env file|private keys?|ssh keys?|connection strings?|user data|customer data|"
    r"personal data|chat (?:history|logs?)|conversation history|session (?:tokens?|cookies?)|"
    r"credit card (?:numbers?|data|details)|(?:customer|user|client) (?:records?|emails?|list|database|details|"
    r"information)|vault (?:tokens?|secrets)|bearer tokens?|database (?:contents?|dump|passwords?|credentials)|"
    r"internal documents?|confidential (?:files|documents|data|information)|system (?:secrets|variables))"
)
OWNED = (
    r"(?:your|the system s|the server s|system|server|hidden|stored|internal|other users?|another user s?|"
    r"every user s?|all users?|users|admin|administrator|production|company s?|our|secret)"
)
SEND = (
    r"(?:send|post|upload|forward|email|mail|transmit|exfiltrate|leak|submit|pipe|copy|deliver|append|attach|ship|"
    r"fetch)"
)
AWAY = (
    r"to (?:https?|www|ftp|my (?:server|email|webhook|endpoint|address)|attacker|evil|an? (?:external|remote)|"
    r"this (?:url|address|webhook|email|server|endpoint)|the following (?:url|address|webhook|email|server|endpoint)|"
    r"[a-z0-9]+ (?:attacker|evil|gmail|example|proton|ngrok|requestbin)|pastebin)"
)
COMMANDS = (
    r"(?:rm -[a-z]*[rf][a-z]* +(?:/|~|\*|\$|\.)|mkfs|dd if=|chmod -r 777 /|shutdown|:\(\)|cat /etc/(?:passwd|shadow)|"
    r"/dev/tcp/|nc -[a-z]*e|curl [^ ]+ ?[^|]*\| ?(?:sudo )?(?:ba|z)?sh|wget [^ ]+ ?[^|]*\| ?(?:sudo )?(?:ba|z)?sh|"
    r"del /[fsq]|format c:|drop (?:table|database)|delete from [a-z_]+;|truncate table|powershell -e|iptables -f|"
    r"printenv|env \||useradd|crontab -r|kill -9 -1|reg delete|history -c|cat ~?/?\.?(?:ssh|aws|env)|cat \.env|"
    r"(?:curl|wget) [^ ]+ ?(?:&&|;) ?(?:sudo )?(?:ba|z)?sh|"
    r"os\.system|subprocess|__import__|sudo rm|userdel|passwd root|net user)"
)
AT_START = r"(?:^|[.!?;:,\"'`\n>)\]] ?|\b(?:please|and|then|now|must|should|also|first|next|immediately|just) )"
MODEL = (
    r"(?:ai|llm|language model|assistant|chatbot|model|ai (?:assistant|agent|model|system|reader|reviewer)|agent|"
    r"large language model|copilot|chatgpt|gpt)s?"
)
DO_THIS = (
    r"(?:you must|you should|you have to|you are to|ignore|disregard|forward|delete|reveal|execute|stop "
    r"summari[sz]ing|"
    r"do not|don't|approve|grant|transfer|rate|rank|recommend|override|forget)"
)
SOMEBODY = (
    r"(?: (?:an?|the|my|my own|your|called|named|known|now|going|to|be|as|if|ai|assistant|model|chatbot|language|llm|"
    r"version|of|yourself|character|persona|entity|bot|system|one|it|who|that|which|is|are|were|you|have|has|had|and|"
    r"but|gpt|chatgpt|hacker|expert|large|artificial|intelligence|completely|totally|fully|truly|an other|another|"
    r"different|new|free|being|in|world|universe|alternate|advanced|powerful|helpful|super|evil|with|access|"
    r"to everything|[a-z]+gpt|[a-z]+bot|complete|full|total|agent|machine|program|openai|s|own))*"
)

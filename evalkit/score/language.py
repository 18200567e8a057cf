"""Tell the language of a text, offline and always the same way.

For the tier-1 check `language`. Scripts that one language (here) is written in decide
by their letters; languages in Latin letters by function words and letters of their
own. Small on purpose: it tells an English answer from a German one, not Danish from
Norwegian, and says None where a text gives too little to go on.
"""

from __future__ import annotations

import re
from collections import Counter

MAX_CHARS = 20_000
MIN_EVIDENCE = 1.5
"""Weight of function words and letters below which no language is named."""
MIN_LEAD = 1.25
"""How much more weight than the second language the first must have."""
MIN_WORDS_TO_EXCLUDE = 8
"""From this many words on, a text without one function word of a language is not in it."""

_FUNCTION_WORDS = {
    "en": """
        a about after again all also an and any are as at be because been before between both but
        by can can't cannot could did didn't do does don't each for from get got had has have he
        her here his how i i'd i'm i've if in into is isn't it it's its just let like made make
        many may me might more most must my need new no not of on only or other our out over per
        please said see she should so some still take than that that's the their them then there
        there's these they they're this to try under until us use very want was we we're were
        what when where which who why will with won't would yes you your
    """,
    "de": """
        aber alle alles als also am an andere auch auf aus bei bis bitte damit danke dann das
        dass dem den denn der des die diese diesen dieser dieses dir drei durch ein eine einem
        einen einer einmal er es etwas euch für gegen habe haben hat hat's hatte hatten hier ich
        ihr ihre ihren im immer in ist ja jedoch kann kein keine konnte können man mehr mein mich
        mir mit muss möchte müssen nach nein neu neue nicht noch nur ob oder ohne schon sehr sein
        seine seiner seit sich sie sind so soll sollte um und uns unser unter von vor wann war
        warum was weil wenn wer werden wie wieder wir wird wo wollen wurde wurden während zu zum
        zur zwei zwischen über
    """,
    "fr": """
        alors après au aussi autre autres aux avant avec avoir bien c' c'est car ce cela ces
        cette chaque comme comment d' d'abord d'un d'une dans de depuis des deux dois doit donc
        du elle elles en encore entre est et fait faut ici il ils j' j'ai jamais je jusqu'à l'
        l'on la le les leur leurs lorsque lui là m' mais merci mes même n' n'a n'est n'y ne non
        nos notre nous ont ou oui où par parce pas pendant peut plus pour pourquoi qu' qu'il
        quand que quel quelle qui rien s' sa sans se sera seront ses si son sont sur tes toujours
        tout très un une veuillez vos votre vous y à ça étaient était être
    """,
    "es": """
        ahí al algo antes aquí así aunque cada como con cual cuando cuál cuándo cómo de debe debo
        del desde después donde durante dónde e el en entonces entre es esta estaba estaban este
        estos está fue gracias había hace hacer han hasta hay inténtelo la las le les lo los me
        mi mientras mis mismo muy más nada no nos nuestra nuestro nuestros nunca o otra otro
        otros para pero por porque puede pueden puedo pues que quien quién qué se ser siempre sin
        sobre son su sus sí también te tener tiene todo tu tus un una unos usted y ya
    """,
    "it": """
        abbiamo agli al all' alla allora anche ancora avere c'è che chi ci come con cosa da dai
        dal dalla degli dei del dell' della delle deve devo di dopo dove e ed era erano essere fa
        fare fra già gli grazie ha hai hanno ho i il in la le lo loro lì ma mai mentre mi molto
        ne negli nei nel nell' nella niente non nostra nostro o od ogni per perché più poi posso
        possono prima può quale quali quando quella quello questa queste questi questo qui quindi
        se sei sempre senza si siamo solo sono stata stato su sua sugli sui sul sulla suo sì ti
        tra tutti un una vi è
    """,
    "pt": """
        algo antes ao aos aqui as assim até cada com como da das de depois deve devo do dos e ela
        ele em embora enquanto entre então era esta estava estavam este está eu favor faz fazer
        foi há isso isto já lhe lá mais mas me mesma mesmo meu minha muito na nada nas no nos
        nosso num numa nunca não nós o obrigado onde os ou outra outro outros para pela pelas
        pelo pelos pode podem pois por porque posso qual quando que quem se sem sempre ser seu
        seus sim sua suas são só também te tem temos tenho tente um uma você vocês à às é
    """,
    "nl": """
        aan al alle alleen alles als altijd andere ben bent bij daar dan dat de deze die dit door
        dus echter een eens en er geen graag had hadden hebben heeft het hier hij hoe hun iets ik
        in is ja je jou kan kunnen kunt maar mag meer met mij moet moeten naar nee niet niets
        nieuw nieuwe nog of om omdat onder ons onze ook op over sinds te tegen tijdens tot tussen
        u uit uw van veel voor waar waarom wanneer want was wat we weer wel werd werden wie wij
        worden wordt zal ze zich zijn zo zonder zou zullen
    """,
    "pl": """
        a aby albo ale ani bardzo bez być był była było będzie ci co coś czy dla dlaczego do
        dzień gdy gdzie go i ich im inne inny jak jako jednak jego jej jest jeśli już kiedy kto
        która które który lub ma mam mamy masz mi między mnie mogę może można my na nad nam nic
        nie nigdy nowy o od ona oni ono oraz pan pani po pod podczas ponieważ proszę przed przez
        przy się swoje swój są ta tak także tam te tego tej ten to trzeba tutaj twoja twoje twój
        tylko tym u w we więc wszystkie wy z za zawsze ze że żeby
    """,
    "sv": """
        aldrig alla allt alltid andra att av bara blev bli blir de dem den denna deras dessa det
        detta dig din ditt dock där därför efter eftersom eller en er ett från för genom hade han
        hans har hennes hitta hon hur här i inget inom inte ja jag kan kunde med mellan men mig
        mot mycket måste nej nu ny nya när något och också om oss på sedan sig sina ska skulle
        som så tack till två under upp utan vad var varför varit vem vi vid vår vårt än är
    """,
}
_OWN_LETTERS = {
    "de": "ß", "fr": "œêûëîù", "es": "ñ¿¡", "it": "ìò", "pt": "ãõ", "pl": "ąćęłńśźż", "sv": "å",
}  # fmt: skip
_SHARED_LETTERS = {"de": "äöü", "sv": "äö", "fr": "çàèéâô", "pt": "çâêôú", "es": "áéíóú"}

_ENDINGS = {
    "en": ("ing", "ly", "ness"), "de": ("ung", "keit", "heit", "lich", "isch", "ungen"),
    "fr": ("eux", "euse", "ez", "aux"), "es": ("ción", "ciones", "dad"),
    "it": ("zione", "zioni", "iamo", "tà"), "pt": ("ção", "ções", "dade"),
    "nl": ("heid", "lijk", "ij"), "pl": ("ość", "ych", "ów", "cie", "ego"),
    "sv": ("ning", "igt", "het"),
}  # fmt: skip

_SCRIPTS = {
    "ja": re.compile(r"[぀-ヿ]"),
    "ko": re.compile(r"[가-힣ᄀ-ᇿ]"),
    "zh": re.compile(r"[一-鿿㐀-䶿]"),
    "uk": re.compile(r"[іїєґІЇЄҐ]"),
    "ru": re.compile(r"[Ѐ-ӿ]"),
    "el": re.compile(r"[Ͱ-Ͽ]"),
    "fa": re.compile(r"[پچژگ]"),
    "ar": re.compile(r"[؀-ۿ]"),
    "he": re.compile(r"[֐-׿]"),
    "hi": re.compile(r"[ऀ-ॿ]"),
    "th": re.compile(r"[฀-๿]"),
}
"""In this order: the first of a family that is present (kana, Ukrainian і) wins over the rest."""
_FAMILY = {"ja": ("zh",), "uk": ("ru",), "fa": ("ar",)}

LANGUAGES = frozenset(_FUNCTION_WORDS) | frozenset(_SCRIPTS)

_NOISE = re.compile(r"https?://\S+|\S{1,64}@\S{1,255}|`[^`\n]*`|\{\{?[^{}\n]*\}\}?|<[^<>\n]*>")
_LATIN_WORD = re.compile(r"[a-zA-ZÀ-ɏ]+(?:['’][a-zA-ZÀ-ɏ]*)?")


def _weights() -> dict[str, dict[str, float]]:
    """A word that n languages share counts 1/n for each, a single letter a third of that."""
    lists = {code: set(text.split()) for code, text in _FUNCTION_WORDS.items()}
    shared = Counter(word for known in lists.values() for word in known)
    table: dict[str, dict[str, float]] = {}
    for code, known in lists.items():
        for word in known:
            table.setdefault(word, {})[code] = (1.0 if len(word) > 1 else 0.3) / shared[word]
    return table


_WEIGHTS = _weights()


def detect_language(text: str) -> str | None:
    """Two-letter code of the language most of `text` is in; None when it does not show."""
    text = _NOISE.sub(" ", text[:MAX_CHARS])
    script = _by_script(text)
    if script is not None:
        return script
    ranked = sorted(_latin_evidence(text).items(), key=lambda item: (-item[1], item[0]))
    if not ranked or ranked[0][1] < MIN_EVIDENCE:
        return None
    if len(ranked) > 1 and ranked[0][1] < MIN_LEAD * ranked[1][1]:
        return None
    return ranked[0][0]


def excludes(text: str, code: str) -> bool:
    """Whether a text that no language was found for is long enough to say it is not `code`."""
    text = _NOISE.sub(" ", text[:MAX_CHARS])
    if code in _SCRIPTS:
        return len(_LATIN_WORD.findall(text)) >= MIN_WORDS_TO_EXCLUDE
    enough = len(_LATIN_WORD.findall(text)) >= MIN_WORDS_TO_EXCLUDE
    return enough and _latin_evidence(text).get(code, 0.0) == 0.0


def _by_script(text: str) -> str | None:
    letters = sum(char.isalpha() for char in text)
    found = {code: len(pattern.findall(text)) for code, pattern in _SCRIPTS.items()}
    for code, count in found.items():
        total = count + sum(found[other] for other in _FAMILY.get(code, ()))
        if code == "uk":
            total = found["ru"]
        # Running Japanese is a tenth kana and more; Ukrainian and Persian letters are rarer.
        if count * 40 >= total > 0 and total * 2 > letters:
            return code
    return None


def _latin_evidence(text: str) -> dict[str, float]:
    evidence: dict[str, float] = {}
    for word, count in Counter(_LATIN_WORD.findall(text.lower().replace("’", "'"))).items():
        votes = dict(_WEIGHTS.get(word, {}))
        if not votes and "'" in word:
            votes = dict(_WEIGHTS.get(word.partition("'")[0] + "'", {}))
        for table, weight in ((_OWN_LETTERS, 0.6), (_SHARED_LETTERS, 0.2)):
            for code, letters in table.items():
                if any(letter in word for letter in letters):
                    votes[code] = max(votes.get(code, 0.0), weight)
        if not votes:
            votes = {code: 0.4 for code, ends in _ENDINGS.items() if word.endswith(ends)}
        for code, weight in votes.items():
            evidence[code] = evidence.get(code, 0.0) + weight * min(count, 20)
    return evidence

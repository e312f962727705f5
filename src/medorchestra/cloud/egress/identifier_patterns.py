"""The patterns of the identifier scan. Data only; `identifiers` runs them. Own work; no pattern of another tool.

Every repetition is bounded or cannot overlap with what follows it, so that no text makes them slow. They are written
for plain text: see `identifiers.plain`.
"""

from __future__ import annotations

from enum import StrEnum


class IdentifierKind(StrEnum):
    """What an identifier is. The order is the order of precedence where two overlap."""

    SECRET = "secret"  # noqa: S105 - the name of a kind
    """A key or token of a service."""
    EMAIL = "email"
    URL = "url"
    """Web or network address."""
    DATE_OF_BIRTH = "date_of_birth"
    NATIONAL_ID = "national_id"
    """Social security, NHS, CHI, resident registration and similar numbers."""
    RECORD_NUMBER = "record_number"
    """Number of a record, patient, examination, account, insurance or licence, or a long bare number."""
    PHONE = "phone"
    """Telephone, fax, pager or extension."""
    DATE = "date"
    """A day of a calendar."""
    ADDRESS = "address"
    """Street, post code, town with its state."""
    NAME = "name"
    PLACE = "place"
    """A hospital, clinic or practice by name; a town somebody lives or was treated in."""


_MONTHS = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?|Januar|Februar|März|Juni|Juli|Oktober|Dezember|janvier|février|mars|avril|mai|juin|"
    r"juillet|août|septembre|octobre|novembre|décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|"
    r"octubre|noviembre|diciembre)"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH_NUMBER = r"(?:0?[1-9]|1[0-2])"
_YEAR = r"(?:19|20)\d\d"
_ANY_YEAR = rf"(?:{_YEAR}|'?\d\d)"
_DAY_DATES = (
    rf"(?<![\d./-]){_DAY}([/-])(?:{_DAY})\1(?:{_YEAR}|\d\d(?! ?(?:mm|cm|HU|m[Ll]|deg|°|%|x)))(?![\d/-])",
    rf"(?<![\d./-]){_DAY}\. ?{_MONTH_NUMBER}\. ?{_YEAR}(?!\d)",
    rf"(?<![\d./-]){_YEAR}([/.-]){_MONTH_NUMBER}\1{_DAY}(?![\d/-])",
    rf"(?<!\d){_YEAR} ?[年년] ?{_MONTH_NUMBER} ?[月월] ?{_DAY} ?[日일]",
    rf"\b{_MONTHS}\.?[ -]{_DAY}(?:st|nd|rd|th)?(?:, ?| ,? ?|-){_ANY_YEAR}(?!\d|\.\d)",
    rf"\b{_MONTHS}\.?[ -]{_DAY}(?:st|nd|rd|th)\b",
    rf"\b(?!May|Mar|mars|mai|Dec){_MONTHS}\.? {_DAY}\b(?![\d.]|[ -]?(?:mm|cm|HU|%|x\b|deg|°|\d))",
    rf"(?<![\d.]){_DAY}(?:st|nd|rd|th|\.)?(?: of| de)?[ -]?{_MONTHS}\b\.?,?(?: de)?[ -]?{_ANY_YEAR}(?!\d|\.\d)",
    rf"(?<![\d.]){_DAY}(?:st|nd|rd|th)(?: of)? {_MONTHS}\b",
    rf"(?<![\d.]){_DAY} (?!May|Mar|Dec|mars|mai){_MONTHS}\b",
)
_BIRTH = (
    r"\b(?:D\.?O\.?B\b\.?|date of birth|birth ?date|born(?: on)?|geb\.|geboren(?: am)?|Geburtsdatum|n[ée]e? le|"
    r"date de naissance|fecha de nacimiento|nacid[oa] el|data di nascita|nat[oa] il)[ :=]{0,4}(?:on |am )?"
)
_BIRTH_DATE = (
    rf"(?:[0-9]{{1,4}}[./-][0-9]{{1,2}}[./-][0-9]{{2,4}}|{_DAY}(?:st|nd|rd|th|\.)?[ -]{_MONTHS}\.?,?[ -]?{_ANY_YEAR}|"
    rf"{_MONTHS}\.? (?:{_DAY}(?:st|nd|rd|th)?,? )?{_ANY_YEAR}|{_MONTH_NUMBER}/{_YEAR}|{_YEAR}|\d{{8}})(?!\d)"
)
_REGISTER = (
    r"(?:MRN|M\.R\.N\.|med(?:ical)?\.? rec(?:ord)?s?|accession|acct|account|HICN|MBI|NHI|URN|PID|insur|ins|"
    r"(?:medical |health )?insurance(?: policy| plan)?|health plan|member(?:ship)?|beneficiary|subscriber|patient|pt)"
)
"""What has nobody's number but a person's: a colon after it is enough."""
_FILE = (
    r"(?:record|chart|hospital|acc|encounter|visit|episode|exam|study|order|requisition|specimen|case|ref|reference|unit|"
    r"policy|group|licen[cs]e|certificate|device|serial|Fall|dossier)"
)
"""What is numbered in other texts too: needs 'number', 'no', 'id' or '#' after it."""
_NUMBER = r"(?:number|num|nummer|nr|no|id|identifier)"
_CODE = r"#?(?=[A-Za-z0-9/_-]{0,20}\d)[A-Za-z0-9]+(?:[/_-][A-Za-z0-9]+){0,4}"
_STATES = "NY|TX|FL|IL|GA|WA|NJ|AZ|MN|WI|TN|KY|NV|UT|KS|NM|OH|NC|SC|VA|MO|WY|MT|ND|NE|NH|RI|VT|WV"
_ALL_STATES = f"{_STATES}|AL|AK|AR|CA|CO|CT|DC|DE|HI|IA|ID|IN|LA|MA|MD|ME|MI|MS|OK|OR|PA|SD"
_CAP = r"[A-Z][a-z]+(?:['-][A-Z]?[a-z]+)?"
_FACILITY = (
    r"(?:(?:Children's|Veterans|Memorial|General|Regional|University|Community|County|City|Royal|National) )?"
    r"(?:Hospitals?|Hosp\b\.?|Clinics?|Medical (?:Center|Centre|Branch|Group|Practice|School|College)|"
    r"Med (?:Ctr|Center)|Infirmary|Health ?(?:[Cc]are|Center|Centre|System)|"
    r"(?:Heart|Cancer|Surgery|Imaging) (?:Center|Centre|Institute)|Radiology Associates|Klinikum|Krankenhaus|Hospice|"
    r"Sanatorium|NHS (?:Foundation )?Trust)(?!\w)"
)

PATTERNS: dict[IdentifierKind, tuple[str, ...]] = {
    IdentifierKind.SECRET: (
        r"\b(?:sk|pk|rk|hf|gsk|ghp|gho|xox[bap]|glpat)[-_][A-Za-z0-9_-]{16,}",
        r"\bAKIA[A-Z0-9]{16}\b|\bBearer [A-Za-z0-9._~+/-]{16,}|-----BEGIN [A-Z ]{3,30}PRIVATE KEY-----",
    ),
    IdentifierKind.EMAIL: (r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}",),
    IdentifierKind.URL: (
        r"\b(?:https?|ftp|s3|smb|dicom)://[^\s<>\"']{3,}|\bwww\.[A-Za-z0-9-]+\.[^\s<>\"']{2,}",
        r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?![\d.])",
        r"\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b",
    ),
    IdentifierKind.DATE_OF_BIRTH: (rf"(?i:{_BIRTH}{_BIRTH_DATE})",),
    IdentifierKind.NATIONAL_ID: (
        # US social security; Korean resident registration, Swiss insurance; UK national insurance; any by its label.
        r"(?<![\w-])\d{3}[- ]\d{2}[- ]\d{4}(?![\w-])",
        r"(?<![\w-])\d{6}-[1-8]\d{6}(?![\w-])|\b756\.\d{4}\.\d{4}\.\d\d\b",
        r"\b[A-CEGHJ-PR-TW-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]\b",
        r"(?i:\b(?:SSN|social security|soc\.? sec\.?|NHS|CHI|NINO|SIN|BSN|Aadhaar|passport|personnummer|CPR|RRN|"
        r"NRIC|CPF|DNI|NIE|INSEE|Steuer-?ID|driver'?s? licen[cs]e)(?: (?:number|no|nr|id)\b)?\.?(?: is)?[ :=#]{1,4})"
        r"(?=[A-Z]{0,3}[ -]?\d)[A-Z]{0,3}[0-9][0-9A-Z .-]{4,16}[0-9A-Z]\b",
    ),
    IdentifierKind.RECORD_NUMBER: (
        rf"(?<!\w)(?i:{_REGISTER})(?:'s)?(?i: ?{_NUMBER}\b)?\.?(?: is| are| MRN)?"
        rf"(?:(?<= is)|(?i:(?<= id)|(?<=number))|[ :=]{{0,2}}[:=#])[ #]{{0,3}}{_CODE}",
        rf"(?<!\w)(?i:MRN|medical record|med rec|accession|HICN) {_CODE}",
        rf"(?<!\w)(?i:{_FILE})(?: ?#| (?i:{_NUMBER})\b\.?)(?: is)?[ :=#]{{0,3}}{_CODE}",
        r"(?i:\b(?:patient|pt|study|exam)?[ ]?ID)[ ]?[#:]{1,2}[ ]?#?(?=[A-Z-]{0,9}\d)[A-Z0-9][A-Z0-9-]{3,}",
        # Without a label: letters before five digits and more (not those of trials and articles), a code in groups, a
        # bare run of seven digits and more, a DICOM identifier.
        r"(?<![\w./-])(?!NCT|ISO|PMC|PMID|ICD|RFC|DOI|COVID|SARS)[A-Z]{1,6}-?\d{5,}[A-Z]{0,3}(?![\w-])",
        r"(?<![\w./-])[A-Z]{1,4}\d{0,2}-\d{2,8}-\d{3,}(?![\w-])",
        r"(?<![\w./:-])\d{7,}(?!\w)(?![.-]\w)|\b[012](?:\.\d{1,12}){6,}\b",
    ),
    IdentifierKind.PHONE: (
        r"(?<![\w.-])(?:\+?1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\w)",
        r"(?<![\w.])(?:\+|00)\d{1,3}[ .-]?(?:\(0\))?(?:[ .-]?\d{2,4}){2,5}(?!\w)",
        r"(?<![\w.])\(?0\d{2,4}\)?[ /-]\d{3,4}[ -]?\d{3,4}(?!\w)",
        r"(?i:\b(?:tel(?:ephone)?|phone|fax|mobile|cell|pager|bleep|beeper|extension|ext|contact(?= n))\b)"
        r"(?: (?:number|no))?(?: is)?[ .:#]{1,3}\+?\(?\d[\d ()/.-]{2,18}\d",
    ),
    IdentifierKind.DATE: _DAY_DATES,
    IdentifierKind.ADDRESS: (
        rf"\b\d{{1,5}}[A-Za-z]?,? (?:(?:N|S|E|W|North|South|East|West)\.? )?(?:{_CAP} ){{1,3}}(?:Street|St|Road|Rd|"
        r"Avenue|Ave|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Way|Terrace|Close|Place|Square|Crescent|Parkway|Highway)\b",
        rf"\b{_CAP} (?:Street|Avenue|Road|Boulevard|Lane)\b|\bP\.? ?O\.? Box \d+",
        r"\b[A-ZÄÖÜ][a-zäöüß]{2,30}(?:straße|strasse|str\.|weg|platz|allee) \d{1,4}[a-z]?\b",
        r"\b\d{1,4},? (?:rue|avenue|boulevard|place|chemin|via|piazza) (?:de |du |des |la )*[A-Z]\w+",
        # UK post codes: the last three characters never hold C, I, K, M, O or V, which spares '5 MM' and '2CM'.
        r"\b(?:GIR 0AA|[A-Z]{1,2}\d[A-Z\d]? (?!1ST|2ND|3RD|\dTH)\d[ABD-HJLNP-UW-Z]{2})\b(?! (?:of|to|and|in)\b)",
        rf"\b(?:{_CAP} ){{0,2}}{_CAP}, (?:(?:{_STATES})\b|(?:{_ALL_STATES}) \d{{5}}(?:-\d{{4}})?\b)",
    ),
    IdentifierKind.PLACE: (
        rf"(?:\b(?:St|Mt)\. )?(?:\b(?:[A-Z][\w'.-]*|of|and|&) ){{1,6}}{_FACILITY}",
        r"\b(?:St|Mt)\. [A-Z][a-z]+(?:'s)?(?! [a-z]*(?:ratio|score|questionnaire))",
        r"\b(?:Hôpital|Clinique|Klinikum|Krankenhaus|Ospedale|Clínica|Hospital (?:de|da|do|Universitario))"
        r"(?: (?:de|la|le))* [A-Z]\w+",
        r"\b[A-Z][A-Za-z]+ General(?=[ ,.;:?)]{0,2}(?:w/|on|in|for|as|with|by|last|$|[,.;?)]))",
        r"\b(?:admitted|treated|tx'd|hospitali[sz]ed|operated(?: on)?|followed|evaluated|assessed|consulted|"
        r"presented|presenting|diagnosed|seen|visited|reviewed|transferred|discharged|received care|surgery|treatment|"
        r"therapy)(?: (?:to|at|from)| in(?= [A-Z][a-z]))? (?:the |our )?"
        r"(?P<place>[A-Z][A-Za-z'-]{2,}(?: (?:and|&|[A-Z][\w'-]+)){0,4})",
        rf"\b(?:liv(?:es|ing)|resid(?:es|ing)|resident|home) (?:in|of|near|at) (?:the )?"
        rf"(?P<place>{_CAP}(?: {_CAP}){{0,2}})",
        rf"\b(?:at|in) (?P<place>{_CAP}(?: {_CAP}){{0,3}}),? (?=(?:on|in|since) (?:{_MONTHS}\b|\d))",
        rf"\b(?:[Cc]linic|[Oo]ffice|[Hh]ospital),? in (?P<place>{_CAP}(?: {_CAP}){{0,2}})",
        rf"\b(?:our|the|in|from) (?P<place>{_CAP}(?: {_CAP}){{0,2}}) "
        r"(?:clinic|office|branch|hospital|practice|surgery|ward)\b",
    ),
}
"""Kind -> patterns. Where a group is named `place`, that group is the identifier, else the whole match."""

PLACE_OF_PERSON = rf"\.?(?:'s (?:office|clinic))? (?:from|in|at|of) (?P<place>{_CAP}(?: {_CAP}){{0,2}})"
"""A town or house right after a person's name."""

PUBLIC_NUMBER = r"(?:\bdoi[: ./]|10\.\d{4,9}/|PMID[: ]|PMC|arXiv[: ]|NCT|ISBN[: ]|ISSN[: ])\S{0,40}$"
"""What stands before the numbers of publications and trials: public, and found in the sources of guidelines."""

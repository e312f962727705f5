"""A small phrase bank for the first topic, and one for a toy plan with parts: enough of everything, written by hand."""

from __future__ import annotations

from datetime import date

from plan_by_hand import PLAN_BY_HAND

from medorchestra.phrases.phrase_answers import (
    AmongAnswer,
    ClosingAnswer,
    DependencyAnswer,
    DerivedAnswer,
    FrameAnswer,
    NumberHabitAnswer,
    PhraseAnswer,
    PhraseAnswers,
    PlaceAnswer,
    SkeletonAnswer,
    SkeletonAnswers,
    StatedAnswer,
    ValueTextAnswer,
    merge,
    new_bank,
)
from medorchestra.phrases.phrase_bank import PhraseBank
from medorchestra.plan import Plan, Provenance

PLAN = PLAN_BY_HAND
PROVENANCE = Provenance(origin="hand", author="the tests", made_on=date(2026, 11, 24))

ARTERIES = {"sma_contact": "SMA", "ca_contact": "coeliac axis", "cha_contact": "CHA"}
CONTACT = {
    "none": ("The {v} is free.", "No contact with the {v}.", "A fat plane is preserved around the {v}.", "{v} clear."),
    "<=180": (
        "The tumour abuts the {v} over [20-180] degrees.",
        "Contact with the {v}, [10-170]°.",
        "The mass touches the {v}.",
        "Abutment of the {v} is seen.",
    ),
    ">180": (
        "The tumour encases the {v}.",
        "Contact with the {v} of [190-360] degrees.",
        "The {v} is surrounded by tumour, [200-350]°.",
        "Circumferential tumour around the {v}.",
    ),
}
VEIN = {
    "none": ("The portal vein and SMV are free.", "No contact with the PV or SMV."),
    "<=180_smooth": ("The SMV is abutted, contour smooth.", "Smooth contact with the SMV of [20-170] degrees."),
    "<=180_irregular": ("Contact of [20-180]° with the SMV, which is narrowed.", "The SMV is tethered by the tumour."),
    ">180": ("The SMV is encased but patent.", "Contact of [190-340] degrees with the portal vein."),
    "occluded": ("The SMV is occluded.", "Thrombosis of the portal vein."),
}
YES_NO = {
    ("liver_mets", "yes"): ("Several liver metastases.", "Liver lesions suspicious for metastases, up to [5-40] mm."),
    ("liver_mets", "no"): ("No liver metastasis.", "Liver cysts of [4-20] mm, no suspicious lesion."),
    ("cha_extension", "yes"): ("It reaches the origin from the coeliac axis.", "Extends to the hepatic bifurcation."),
    ("cha_extension", "no"): ("The contact ends before the hepatic bifurcation.", "Short segment, no extension."),
    ("pv_smv_reconstructible", "yes"): ("Good vein above and below.", "The vein can be reconstructed."),
    ("pv_smv_reconstructible", "no"): ("No vein left for a graft.", "The vein cannot be reconstructed."),
    ("exam_adequate", "yes"): ("CT with contrast in two phases.", "Contrast-enhanced CT."),
    ("exam_adequate", "no"): ("Unenhanced CT.", "CT without contrast, severe motion artefacts, not diagnostic."),
    ("tumor_present", "no"): ("No pancreatic mass is found.", "The pancreas is without a tumour."),
}
SECTION = {
    "exam_adequate": "technique",
    "tumor_present": "tumour",
    "liver_mets": "liver",
    "pv_smv_contact": "veins",
    "pv_smv_reconstructible": "veins",
}


def said(text: str, section: str, states: dict[str, str], **more: object) -> PhraseAnswer:
    stated = [StatedAnswer(finding=name, value=value) for name, value in states.items()]
    return PhraseAnswer(text=text, section=section, states=stated, **more)


def among(**needs: list[str]) -> list[AmongAnswer]:
    return [AmongAnswer(finding=name, values=values) for name, values in needs.items()]


def varied(text: str, section: str, states: dict[str, str], **more: object) -> list[PhraseAnswer]:
    """The same said by four people, so that every split gets one."""
    ways = ("{}", "{} Seen on all images.", "As far as can be judged: {}", "{} No change on the reformats.")
    return [said(way.format(text), section, states, **more) for way in ways]


def frame() -> FrameAnswer:
    vessels = [*ARTERIES, "pv_smv_contact"]
    with_tumour = [*vessels, "tumor_location", "tumor_size_cm", "pv_smv_reconstructible"]
    return FrameAnswer(
        findings=[
            *("exam_adequate", "tumor_present", "tumor_location", "tumor_size_cm", *vessels, "cha_extension"),
            *("pv_smv_reconstructible", "liver_mets", "equivocal_vessel_wording", "impression_conflict"),
        ],
        sections=["technique", "tumour", "arteries", "veins", "liver", "other", "impression"],
        closing=ClosingAnswer(
            sections=["impression"], finding="impression_conflict", agrees="no", conflicts="yes", about=vessels
        ),
        derived=[DerivedAnswer(finding="equivocal_vessel_wording", value="no", if_any_stated=vessels)],
        dependencies=[
            *(DependencyAnswer(finding=name, on="tumor_present", among=["yes"]) for name in with_tumour),
            DependencyAnswer(finding="cha_extension", on="cha_contact", among=["<=180", ">180"]),
            DependencyAnswer(finding="pv_smv_reconstructible", on="pv_smv_contact", among=[*VEIN][1:]),
        ],
        numbers=[NumberHabitAnswer(finding="tumor_size_cm", low=1.0, high=7.0, decimals=1)],
        synonyms=[["SMA", "superior mesenteric artery"], ["CHA", "common hepatic artery"]],
        protected=["contact"],
    )


def phrases() -> PhraseAnswers:
    found: list[PhraseAnswer] = []
    for name, vessel in ARTERIES.items():
        for value, texts in CONTACT.items():
            for text in texts:
                filled = text.replace("{v}", vessel).replace("[", "{").replace("]", "}")
                found += varied(filled, "arteries", {name: value})
    for value, texts in VEIN.items():
        for text in texts:
            found += varied(text.replace("[", "{").replace("]", "}"), "veins", {"pv_smv_contact": value})
    for (name, value), texts in YES_NO.items():
        for text in texts:
            filled = text.replace("[", "{").replace("]", "}")
            found += varied(filled, SECTION.get(name, "arteries"), {name: value})
    for place in PLAN.finding("tumor_location").values or ():
        where = "several parts" if place == "multiple" else f"the {place}"
        here = {"tumor_present": "yes", "tumor_location": place}
        found += varied(f"Solid mass in {where} of the pancreas.", "tumour", here)
        found += varied(f"Mass of {{cm}} x {{cm2}} cm in {where}.", "tumour", here | {"tumor_size_cm": "number"})
    found += varied("Solid pancreatic mass.", "tumour", {"tumor_present": "yes"})
    found += varied("Pancreatic mass of {mm} mm.", "tumour", {"tumor_present": "yes", "tumor_size_cm": "number"})
    free = dict.fromkeys(ARTERIES, "none")
    found += varied("No arterial contact.", "arteries", free)
    found += varied("The other arteries are free.", "arteries", free, rest=True)
    hazy = among(sma_contact=["not_stated"])
    found += varied("Haziness around the SMA.", "arteries", {"equivocal_vessel_wording": "yes"}, needs=hazy)
    for text, states in (
        ("Arteries are not involved.", free),
        ("SMA encasement.", {"sma_contact": ">180"}),
        ("Hepatic metastases.", {"liver_mets": "yes"}),
        ("Pancreatic tumour, {cm} cm.", {"tumor_present": "yes", "tumor_size_cm": "number"}),
    ):
        found += varied(text, "impression", states)
    for text in ("no contact", "0", "free", "clear fat plane"):
        found += [said(text, "arteries", {name: "none"}, form="structured") for name in ARTERIES]
    return PhraseAnswers(phrases=[*found, *distractors()])


def distractors() -> list[PhraseAnswer]:
    found: list[PhraseAnswer] = []
    earlier = among(tumor_present=["yes"])
    found += varied("Previously {prior_cm} cm.", "tumour", {}, needs=earlier, traps=["prior_value"])
    found += varied("Splenic artery contact of {20-350} degrees.", "arteries", {}, traps=["splenic_vessels"])
    found += varied("The SMV is patent.", "veins", {}, not_with=among(pv_smv_contact=["occluded"]))
    found += varied("Renal cyst of {1.2-4.5} cm.", "other", {})
    found += varied("Discussion in the tumour board is suggested.", "impression", {})
    return found


def skeletons() -> SkeletonAnswers:
    found: list[SkeletonAnswer] = []
    body = ["technique", "tumour", "arteries", "veins", "liver", "other"]
    for i, title in enumerate(("REPORT", "CT", "RADIOLOGY", "EXAMINATION")):
        free = [
            PlaceAnswer(heading=title),
            PlaceAnswer(heading="Findings:\n", sections=body),
            PlaceAnswer(heading="\nImpression:\n1. ", sections=["impression"], join="\n{n}. "),
        ]
        found.append(
            SkeletonAnswer(
                form="free_text",
                style=f"free {title}",
                places=free,
                case=("as_written", "upper")[i % 2],
                decimal=(".", ",")[i // 2],
                wrap=60 if i == 0 else None,
            )
        )
        labels = {"none": "no contact", "<=180": "up to 180 degrees", ">180": "more than 180 degrees"}
        form = [
            PlaceAnswer(heading=f"{title} FORM"),
            PlaceAnswer(heading="Technique: ", sections=["technique"]),
            PlaceAnswer(heading="Tumour: ", sections=["tumour"]),
            *(
                PlaceAnswer(
                    heading=f"{label}: ",
                    findings=[name],
                    values=[ValueTextAnswer(value=value, text=text) for value, text in labels.items()],
                    silent="not assessed",
                )
                for name, label in ARTERIES.items()
            ),
            PlaceAnswer(heading="Splenic artery: ", says=["encased", "no contact", "not seen"]),
            PlaceAnswer(heading="PV: ", says=["no contact"], needs=among(pv_smv_contact=[*VEIN])),
            PlaceAnswer(heading="Veins: ", sections=["veins", "arteries"], end=";"),
            PlaceAnswer(heading="Liver: ", sections=["liver"]),
            PlaceAnswer(heading="Conclusion: ", sections=["impression"]),
        ]
        found.append(SkeletonAnswer(form="structured", style=f"form {title}", places=form))
    return SkeletonAnswers(skeletons=found)


def small_bank() -> PhraseBank:
    """The bank for the first topic."""
    made = merge(new_bank(PLAN, frame(), PROVENANCE), PLAN, [phrases(), skeletons()])
    assert made.problems == ()
    return made.bank


def parts_plan() -> Plan:
    """A toy plan with a part and two numbers: T by size, N by count, a group of both."""
    cite = {"section": "1", "quote": "toy"}

    def number(name: str, unit: str, maximum: float) -> dict[str, object]:
        silence = {"why": "toy"}
        return {
            "name": name,
            "description": name,
            "number": {"unit": unit, "minimum": 0.1 if unit == "cm" else 0, "maximum": maximum},
            "not_stated": silence,
        }

    def rule(id_: str, outcome: str, when: dict[str, object]) -> dict[str, object]:
        return {"id": id_, "outcome": outcome, "when": when, "citation": cite}

    def outcomes(*names: str) -> list[dict[str, str]]:
        return [{"name": name, "description": name} for name in names]

    return Plan.model_validate(
        {
            "topic": "toy",
            "title": "Toy",
            "guideline": {"title": "Toy", "edition": "1", "digest": "sha256:" + "0" * 64},
            "provenance": PROVENANCE,
            "scope": {"language": "en"},
            "profile": {"head": {"instructed": "Read."}},
            "outcomes": outcomes("early", "late"),
            "findings": [number("size", "cm", 20.0), number("nodes", "count", 40)],
            "subtasks": [
                {
                    "id": name,
                    "finding": name,
                    "answer": "number",
                    "prompt": {"instructed": "How much?"},
                    "labels": {"not_stated": "not stated"},
                    "citation": cite,
                }
                for name in ("size", "nodes")
            ],
            "parts": [
                {
                    "name": "t_category",
                    "title": "T",
                    "outcomes": outcomes("T1", "T2"),
                    "rules": [
                        rule("t1", "T1", {"finding": "size", "at_most": 2.0}),
                        rule("t2", "T2", {"finding": "size", "above": 2.0}),
                    ],
                }
            ],
            "rules": [
                rule("nodal", "late", {"finding": "nodes", "at_least": 4}),
                rule("large", "late", {"part": "t_category", "in": ["T2"]}),
                rule("small", "early", {"part": "t_category", "in": ["T1"]}),
            ],
        }
    )


def parts_bank() -> PhraseBank:
    """The bank for the toy plan."""
    plan = parts_plan()
    frame = FrameAnswer(
        findings=["size", "nodes"],
        sections=["body"],
        numbers=[
            NumberHabitAnswer(finding="nodes", low=0, high=9),
            NumberHabitAnswer(finding="size", low=0.5, high=6, decimals=1),
        ],
    )
    sizes = ("Size {cm} cm.", "{mm} mm.", "A {cm} cm mass.", "It has {mm} mm.")
    texts = [said(text, "body", {"size": "number"}) for text in sizes]
    counted = ("seen", "found", "there", "counted")
    texts += [said(f"{{count}} nodes {word}.", "body", {"nodes": "number"}) for word in counted]
    texts += [said(f"{word} {{20-60}} years.", "body", {}) for word in ("Age", "For", "Aged", "Since")]
    layouts = [
        SkeletonAnswer(form="free_text", style=f"style {i}", places=[PlaceAnswer(heading=f"{i}) ", sections=["body"])])
        for i in range(4)
    ]
    made = merge(
        new_bank(plan, frame, PROVENANCE), plan, [PhraseAnswers(phrases=texts), SkeletonAnswers(skeletons=layouts)]
    )
    assert made.problems == ()
    return made.bank

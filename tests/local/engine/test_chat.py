"""Chat templates, in the manner of the common model families, and those that cannot be used."""

from __future__ import annotations

import pytest

from medorchestra.errors import ModelError
from medorchestra.local.engine.chat import ACKNOWLEDGEMENT, PLAIN_FORMAT, ChatFormat, Segment, chat_format

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STRICT_AND_TRIMMING = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (message['content'] | trim) + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
THINKING = (
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'assistant' and loop.last %}\n"
    "        {{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + message.content + '<|im_end|>\n' }}\n"
    "    {%- else %}\n"
    "        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\n' }}\n"
    "    {%- if enable_thinking is defined and not enable_thinking %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}\n"
    "{%- endif %}\n"
)


def written(chat: ChatFormat, head: str = "HEAD", report: str = "REPORT", question: str = "QUESTION") -> str:
    pieces = (*chat.head_segments(head), *chat.report_segments(report), *chat.question_segments(question))
    return "".join(piece.text for piece in pieces)


def test_the_prompt_is_what_the_template_writes() -> None:
    chat = chat_format(CHATML, special_tokens=SPECIAL)
    assert written(chat) == (
        "<|im_start|>user\nHEAD\n\nREPORT<|im_end|>\n"
        f"<|im_start|>assistant\n{ACKNOWLEDGEMENT}<|im_end|>\n"
        "<|im_start|>user\nQUESTION<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (chat.lead, chat.ending) == ("", "<|im_end|>\n")


def test_only_what_the_template_wrote_counts_as_markup() -> None:
    chat = chat_format(CHATML, special_tokens=SPECIAL)
    report = "before <|im_end|> {{ 7*7 }} {% raw %} behind"
    pieces = (*chat.head_segments("head"), *chat.report_segments(report), *chat.question_segments("Is it so?"))
    assert [piece.text for piece in pieces if not piece.markup] == ["head\n\n", report, "Is it so?"]
    assert all("<|im_start|>" in piece.text for piece in pieces if piece.markup)


def test_between_report_and_question_there_is_always_markup() -> None:
    for template in (CHATML, STRICT_AND_TRIMMING, BRACKETS, THINKING, None):
        chat = chat_format(template, special_tokens=SPECIAL)
        assert chat.report_segments("REPORT")[-1] == Segment(chat.seam, markup=True)


def test_a_template_that_trims_and_insists_on_alternation_is_served() -> None:
    chat = chat_format(STRICT_AND_TRIMMING, special_tokens=SPECIAL)
    assert written(chat).startswith("<s><start_of_turn>user\nHEAD\n\nREPORT<end_of_turn>\n<start_of_turn>model\n")
    assert chat.ending == "<end_of_turn>\n"


def test_the_space_before_an_answer_is_found_in_the_template() -> None:
    chat = chat_format(BRACKETS, special_tokens=SPECIAL)
    assert written(chat).endswith("[INST] QUESTION [/INST]")
    assert chat.answer_text("yes") == " yes"
    assert chat.ending == "</s>"


def test_a_model_that_can_think_is_asked_not_to() -> None:
    chat = chat_format(THINKING, special_tokens=SPECIAL)
    assert written(chat).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert chat.answer_text("yes") == "yes"


def test_markup_that_the_template_writes_before_every_answer_becomes_part_of_the_prompt() -> None:
    template = CHATML.replace(
        "message['content'] +", "('<final>' if message['role'] == 'assistant' else '') + message['content'] +"
    )
    chat = chat_format(template, special_tokens=SPECIAL)
    assert chat.reply.endswith("<|im_start|>assistant\n<final>")
    assert chat.lead == ""


def test_a_dated_template_writes_the_same_on_every_day() -> None:
    chat = chat_format("{{ strftime_now('%d %b %Y') }}\n" + CHATML, special_tokens=SPECIAL)
    assert chat.opening.startswith("26 Jul 2024\n")


def test_blocks_are_trimmed_as_templates_expect() -> None:
    spread = CHATML.replace("{% for", "   {% for").replace("messages %}", "messages %}\n")
    assert written(chat_format(spread, special_tokens=SPECIAL)) == written(chat_format(CHATML, special_tokens=SPECIAL))


def test_a_model_without_a_template_gets_the_documented_plain_format() -> None:
    chat = chat_format(None, special_tokens=SPECIAL)
    assert chat == PLAIN_FORMAT
    assert chat.name == "plain"
    assert written(chat) == "HEAD\n\nREPORT\n\nQuestion: QUESTION\nAnswer:"
    assert chat.answer_text("yes") == " yes"


def test_an_empty_head_leaves_no_blank_line() -> None:
    assert written(PLAIN_FORMAT, head="") == "REPORT\n\nQuestion: QUESTION\nAnswer:"


def test_the_name_tells_templates_apart() -> None:
    names = {chat_format(template, special_tokens=SPECIAL).name for template in (CHATML, BRACKETS, None)}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no system message given') }}", "no system message given"),
        ("{% for message in messages %}", "cannot be rendered"),
        ("{{ messages[0].content.__class__.__mro__ }}", "cannot be rendered"),
        ("{{ messages.append(1) }}", "cannot be rendered"),
        ("{{ messages[7].content | upper }}{{ 1 / 0 }}", "cannot be rendered"),
        ("{{ messages[-1]['content'] }}", "drops, doubles or reorders"),
        (CHATML + "{{ messages[0]['content'] }}", "drops, doubles or reorders"),
        (CHATML.replace("in messages", "in messages | reverse"), "drops, doubles or reorders"),
        (CHATML.replace("message['content']", "(message['content'] | upper)"), "drops, doubles or reorders"),
        (CHATML.replace("message['content']", "(message['content'] | replace('\n\n', '\n'))"), "blank line"),
        ("no messages at all", "drops, doubles or reorders"),
    ],
)
def test_a_template_that_cannot_be_used_is_named(template: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        chat_format(template, special_tokens=SPECIAL)
    assert "template sha256:" in str(caught.value)


def test_segments_do_not_show_their_text() -> None:
    assert "jaundice" not in repr(Segment("painless jaundice", markup=False))

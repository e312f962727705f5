"""The hosted model that is written by hand."""

from __future__ import annotations

import doctest

import pytest

from medorchestra.cloud.desk import scripted_cloud
from medorchestra.cloud.desk.client import ChatReply, ChatRequest, CloudModel, FinishReason
from medorchestra.cloud.desk.scripted_cloud import ScriptedCloudModel
from medorchestra.errors import CloudError

REQUEST = ChatRequest("scripted", "system", "user")


def test_the_example_in_its_description_is_true():
    names = {"ChatRequest": ChatRequest, "ScriptedCloudModel": ScriptedCloudModel}
    results = doctest.testmod(scripted_cloud, globs=names)
    assert results.attempted == 3
    assert results.failed == 0


def test_a_text_is_a_complete_reply_whose_tokens_nobody_counted():
    model: CloudModel = ScriptedCloudModel(lambda request: request.user, name="large-1")
    assert model.complete(REQUEST) == ChatReply("user", None, None, "large-1", FinishReason.COMPLETE)


def test_a_whole_reply_is_passed_on_and_an_exception_is_raised():
    cut = ChatReply("{", 5, 1, "scripted", FinishReason.LENGTH)
    assert ScriptedCloudModel(lambda request: cut).complete(REQUEST) is cut
    model = ScriptedCloudModel(lambda request: CloudError("down"))
    with pytest.raises(CloudError, match="down"):
        model.complete(REQUEST)
    assert model.requests == (REQUEST,)

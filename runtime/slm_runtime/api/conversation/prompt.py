"""A conversation to a prompt, with a template's complaints as answers for the client."""

from typing import Any, Final

from slm_runtime.api.http.problems import BadRequest, ServerFault
from slm_runtime.templates.chat import ChatFormat
from slm_runtime.templates.messages import ChatMessage
from slm_runtime.templates.renderer import TemplateFailed

_REMEDY: Final = "Whoever runs this model can set another template in spec.model.prompt.template."


async def render_chat(
    chat: ChatFormat,
    messages: list[ChatMessage],
    *,
    tools: list[dict[str, Any]] | None = None,
    variables: dict[str, Any] | None = None,
) -> str:
    """Render a conversation.

    Raises
    ------
    BadRequest
        The template doesn't take these messages.
    ServerFault
        It takes none at all.
    """
    if chat.problem is not None:
        raise ServerFault(f"{chat.problem}. {_REMEDY}")
    try:
        return await chat.prompt(messages, tools=tools, variables=variables)
    except RecursionError:
        raise BadRequest("The messages are nested too deeply.", param="messages") from None
    except TemplateFailed as error:
        if error.kind == "refused":
            sentence = f"The model's chat template refuses these messages: {error.message}"
        else:
            sentence = f"The model's chat template can't render these messages: {error.message}"
        raise BadRequest(sentence, param="messages", code="chat_template") from error

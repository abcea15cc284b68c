"""From a Modelfile's instructions to an SLMDeployment."""

from collections.abc import Callable, Mapping
from typing import Final

from kubectl_slm.others.converted import Converted, Draft, NotConverted
from kubectl_slm.others.modelfile.parameters import keep
from kubectl_slm.others.modelfile.parser import Command, parse
from kubectl_slm.others.modelfile.sources import adapter_source, model_source
from slm_contract.gotemplate import TemplateRefused, passes_through, translate
from slm_operator.crd.names import GROUP

LICENSE_ANNOTATION: Final = f"{GROUP}/license"
MAX_TEXT: Final = 8192
MAX_TEMPLATE: Final = 16384
MAX_MESSAGES: Final = 32
MAX_LICENSE: Final = 64 * 1024
MAX_ADAPTERS: Final = 8


def convert(text: str, name: str, source: str | None = None) -> Converted:
    """Make an SLMDeployment of a Modelfile.

    Parameters
    ----------
    name
        Of the SLMDeployment.
    source
        Where the model is, in place of what `FROM` says.

    Raises
    ------
    NotConverted
    """
    commands = parse(text)
    draft = Draft()
    _model(draft, [each for each in commands if each.name == "from"], source)
    for each in _last_words(commands):
        _INSTRUCTIONS[each.name](draft, each)
    return draft.converted(name)


def _last_words(commands: tuple[Command, ...]) -> list[Command]:
    """Of `SYSTEM` and `TEMPLATE` the last counts, as Ollama has it."""
    single = {"system", "template"}
    last = {each.name: each for each in commands if each.name in single}
    return [
        each
        for each in commands
        if each.name != "from" and (each.name not in single or last[each.name] is each)
    ]


def _model(draft: Draft, named: list[Command], source: str | None) -> None:
    last = named[-1]
    for each in named[:-1]:
        draft.note(each.line, f"FROM {each.value}", "of several FROM the last counts")
    if source is not None:
        draft.put("model.source", model_source(last.line, source)[0])
        return
    where, quantization = model_source(last.line, last.value)
    draft.put("model.source", where)
    if quantization is not None:
        draft.put("model.quantization", quantization)


def _system(draft: Draft, command: Command) -> None:
    _tell(draft, command, first=True)


def _tell(draft: Draft, command: Command, *, first: bool) -> None:
    """Add to the system message; `first`: in front of what is there."""
    if not command.value:
        return
    there = draft.get("model.prompt.system")
    parts = [command.value, there] if first else [there, command.value]
    text = "\n\n".join(each for each in parts if each)
    if len(text) > MAX_TEXT:
        raise NotConverted(
            command.line,
            f"the system message has {len(text):,} characters, and spec.model.prompt.system takes {MAX_TEXT:,}",
            "Shorten it: each request pays for it with its context and its time.",
        )
    draft.put("model.prompt.system", text)


def _template(draft: Draft, command: Command) -> None:
    what = "TEMPLATE"
    try:
        if passes_through(command.value):
            draft.note(
                command.line,
                what,
                "it passes the prompt through; the model's own chat template counts instead",
            )
            return
        template = translate(command.value)
    except TemplateRefused as error:
        draft.note(
            command.line + error.line - 1,
            what,
            f"{error.why}; the model's own chat template counts, or a Jinja one in spec.model.prompt.template",
        )
        return
    if len(template) > MAX_TEMPLATE:
        draft.note(
            command.line,
            what,
            f"in Jinja it has {len(template):,} characters, and spec.model.prompt.template takes {MAX_TEMPLATE:,}; "
            "the model's own chat template counts",
        )
        return
    draft.put("model.prompt.template", template)


def _adapter(draft: Draft, command: Command) -> None:
    adapters = draft.get("model.adapters") or []
    if len(adapters) == MAX_ADAPTERS:
        draft.note(command.line, f"ADAPTER {command.value}", f"spec.model.adapters takes {MAX_ADAPTERS}")
        return
    name = f"adapter-{len(adapters) + 1}"
    source = adapter_source(command.line, command.value)
    draft.put("model.adapters", [*adapters, {"name": name, "source": source}])
    draft.note(
        command.line,
        f"ADAPTER {command.value}",
        f"it is served beside the model: requests for the model {name!r} get it; rename it in spec.model.adapters",
    )


def _message(draft: Draft, command: Command) -> None:
    what = f"MESSAGE {command.key} {command.value}"
    if command.key == "system":
        _tell(draft, command, first=False)
        draft.note(
            command.line, what, "it was added to spec.model.prompt.system, which a request's own goes before"
        )
        return
    messages = draft.get("model.prompt.messages") or []
    if not command.value or len(command.value) > MAX_TEXT or len(messages) == MAX_MESSAGES:
        draft.note(
            command.line,
            what,
            f"spec.model.prompt.messages takes {MAX_MESSAGES} of 1 to {MAX_TEXT:,} characters; it was left out",
        )
        return
    draft.put("model.prompt.messages", [*messages, {"role": command.key, "content": command.value}])


def _license(draft: Draft, command: Command) -> None:
    there = draft.annotations.get(LICENSE_ANNOTATION)
    text = command.value if there is None else f"{there}\n\n{command.value}"
    if len(text.encode()) > MAX_LICENSE:
        draft.note(
            command.line,
            "LICENSE",
            f"an annotation takes {MAX_LICENSE // 1024} KiB of it; keep it in a ConfigMap",
        )
        return
    draft.annotations[LICENSE_ANNOTATION] = text


def _left_out(why: str) -> Callable[[Draft, Command], None]:
    def noted(draft: Draft, command: Command) -> None:
        draft.note(command.line, f"{command.name.upper()} {command.value}", why)

    return noted


def _parameter(draft: Draft, command: Command) -> None:
    keep(draft, command.line, command.key, command.value)


_BUILT_IN: Final = (
    "it is a part of Ollama's program; the model's own chat template counts, and its family's calls and reasoning are read "
    "as they are written"
)
_INSTRUCTIONS: Final[Mapping[str, Callable[[Draft, Command], None]]] = {
    "parameter": _parameter,
    "system": _system,
    "template": _template,
    "adapter": _adapter,
    "message": _message,
    "license": _license,
    "requires": _left_out(
        "it is a release of Ollama; what a model needs is known when its header is read, before a pod exists"
    ),
    "renderer": _left_out(_BUILT_IN),
    "parser": _left_out(_BUILT_IN),
    "file": _left_out(
        "Ollama has no such instruction, and a model's knowledge has no field: write what is short into SYSTEM, and have "
        "the application look up what is long and send the passages with the question"
    ),
}

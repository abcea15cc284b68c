"""`kubectl slm convert FILE...`: Foundry Local's configuration, or a server's environment, as an SLMDeployment."""

import argparse
import re
from typing import Final

from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.others.converted import Draft, NotConverted
from kubectl_slm.others.delivering import checked_name, deliver, read, takes_apply

HELP: Final = "make an SLMDeployment of Foundry Local's configuration, or of a server's environment"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="Foundry Local's JSON, lines NAME=value of OLLAMA_ and FOUNDRY_ variables, a Kubernetes Deployment with such, "
        "or commands of either; - is what is piped in",
    )
    parser.add_argument("--name", help="of the SLMDeployment; without it, the model's")
    parser.add_argument("--model", help="a source, or a name of the catalog, in place of what the files say")
    takes_apply(parser)


def run(args: argparse.Namespace) -> int:
    from kubectl_slm.others.foundry.names import catalog_source

    draft = Draft()
    for file in args.files:
        draft.file = file if len(args.files) > 1 else None
        try:
            _configure(draft, read(file).decode(errors="replace"))
        except NotConverted as error:
            raise CommandError(f"{file}: {error.message}", error.remedy, Exit.USAGE) from None
    if args.model is not None:
        try:
            draft.put("model.source", catalog_source(draft, None, args.model))
        except NotConverted as error:
            raise CommandError(error.message, error.remedy, Exit.USAGE) from None
    source = draft.get("model.source")
    if source is None:
        raise CommandError(
            f"{' and '.join(args.files)}: no model is named there",
            "name the file that has deployment.model too, or write --model phi-4-mini",
            Exit.USAGE,
        )
    name = args.name or re.sub(r"[^a-z0-9]+", "-", source.rpartition("/")[2].lower()).strip("-")
    return deliver(draft.converted(checked_name(name)), args)


def _configure(draft: Draft, text: str) -> None:
    """Find out what it is, and take it over."""
    from kubectl_slm.others import commands, environment, foundry, workload

    if text.lstrip().startswith("{"):
        foundry.configure(draft, text)
        return
    if re.search(r"^kind:", text, re.MULTILINE):
        import yaml

        try:
            documents = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
        except yaml.YAMLError as error:
            raise NotConverted(None, f"it is no YAML: {error}", "Correct it, or name another file.") from None
        served = [each for each in documents if each.get("kind") in workload.KINDS]
        if len(served) != 1:
            raise NotConverted(
                None,
                f"it has {len(served)} Deployments",
                "Leave the one that serves the model in it, and name it alone.",
            )
        workload.configure(draft, served[0])
        return
    told = commands.counterparts(text)
    if told:
        lines = "\n".join(each.sentence for each in told)
        raise NotConverted(
            None, f"it has commands, which make no manifest:\n{lines}", "Write what stands behind each."
        )
    if re.search(r"^\s*FROM\s+\S", text, re.IGNORECASE | re.MULTILINE) and "OLLAMA_" not in text:
        raise NotConverted(None, "it is a Modelfile", "Write: kubectl slm create NAME -f FILE")
    given = environment.variables(text)
    if not given:
        raise NotConverted(
            None,
            "it is neither Foundry Local's JSON nor an environment",
            "Write lines such as OLLAMA_NUM_PARALLEL=4, or name a JSON file with deployment.model in it.",
        )
    environment.configure(
        draft,
        [each for each in given if re.match("OLLAMA_|FOUNDRY_", each[1]) or each[1] in environment.SETTINGS],
    )

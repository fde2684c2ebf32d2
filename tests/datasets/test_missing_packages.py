"""Scripts for web pages with requirements.txt alone: one line names what to install, and nothing is written."""
import os
import subprocess
import sys
import sysconfig

import pytest

from tests.datasets.test_extract_text import write_archive

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def run(tmp_path):
    """Function (script, arguments, *hidden): runs it where the packages `hidden` of the first call are missing."""
    packages = tmp_path / "packages"

    def run(script, arguments, *hidden):
        if not packages.exists():
            packages.mkdir()
            for entry in os.scandir(sysconfig.get_path("purelib")):
                if not entry.name.startswith(hidden):
                    os.symlink(entry.path, packages / entry.name)
        return subprocess.run([sys.executable, "-S", os.path.join(ROOT, "datasets", script), *map(str, arguments)],
                              env={**os.environ, "PYTHONPATH": str(packages)}, cwd=ROOT, text=True,
                              capture_output=True, timeout=60)
    return run


DATA = ("protego", "aiohttp", "resiliparse", "trafilatura", "newspaper", "fastwarc")


def check(result, package, output):
    assert result.returncode == 2 and not output.exists()
    assert result.stderr.splitlines() == [
        f"error: the package {package} is not installed: `pip install -r requirements-data.txt`"]


@pytest.mark.parametrize("hidden, package", [(DATA, "aiohttp"), (("protego",), "protego"), (("aiohttp",), "aiohttp"),
                                             (("resiliparse",), "resiliparse")])
def test_download(tmp_path, run, hidden, package):
    (tmp_path / "urls.txt").write_text("http://localhost/\n")
    out = tmp_path / "out"
    check(run("download.py", [tmp_path / "urls.txt", "--output_dir", out], *hidden), package, out)


@pytest.mark.parametrize("more, hidden, package", [
    ([], DATA, "resiliparse"), ([], ("trafilatura",), "trafilatura"),
    (["--extractor", "newspaper"], ("newspaper",), "newspaper4k"), (["--language", "en"], DATA, "resiliparse")])
def test_extraction(tmp_path, run, more, hidden, package):
    archive, out = write_archive(tmp_path / "pages", {1: b"<p>page"}), tmp_path / "out"
    check(run("extract_text.py", ["--archive", archive, "--output_dir", out, *more], *hidden), package, out)


def test_extraction_of_warc_files_and_of_others(tmp_path, run):
    (tmp_path / "pages.warc").write_bytes(b"")
    out = tmp_path / "out"
    check(run("run_newspaper_extract.py", ["--input", tmp_path / "pages.warc", "--output_dir", out], "fastwarc"),
          "fastwarc", out)
    archive = write_archive(tmp_path / "pages", {1: b"<p>page"})
    result = run("run_newspaper_extract.py", ["--input", archive, "--output_dir", out])
    assert result.returncode == 0 and (out / "extraction.json").exists(), result.stderr


def test_make_corpus(tmp_path, run):
    (tmp_path / "urls.txt").write_text("http://localhost/\n")
    out = tmp_path / "out"
    result = run("make_corpus.py", ["--urls", tmp_path / "urls.txt", "--output_dir", out], *DATA)
    assert result.returncode == 2 and not out.exists()
    assert result.stderr.splitlines() == ["error: download: the package aiohttp is not installed: `pip install -r "
                                          "requirements-data.txt`"]


@pytest.mark.parametrize("script", ["download.py", "extract_text.py", "run_newspaper_extract.py", "make_corpus.py"])
def test_help_needs_none_of_them(run, script):
    result = run(script, ["--help"], *DATA)
    assert result.returncode == 0 and "usage:" in result.stdout and not result.stderr

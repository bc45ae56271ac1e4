"""The report is one file that asks for nothing, escapes what it shows and draws its scans."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gliomoe.finetune.report.evaluations import Evaluation, as_text, cell
from gliomoe.finetune.report.figures import Interval, comparison, curves
from gliomoe.finetune.report.page import Page, render
from gliomoe.finetune.report.scans import Scan

HOSTILE = "</script><script>alert(1)</script>"


def page(title: str = "A run") -> Page:
    grid = np.indices((40, 44, 36)).astype(np.float32) - 20
    radius = np.sqrt((grid**2).sum(0))
    image = np.where(radius < 16, 100 + 3 * grid[0], 0).astype(np.float32)
    seg = np.where(radius < 8, 2, 0).astype(np.uint8)
    seg[radius < 5] = 3
    scans = [
        Scan(name, {"t1ce": image, "flair": image.max() - image}, {"prediction": seg}, np.eye(4))
        for name in (title, "second")
    ]
    measures = {"Dice WT": Interval(0.8, 0.7, 0.9), "AUC IDH": Interval(0.6)}
    epochs = [1.0, 2.0, 3.0]
    return Page(
        title=title,
        lead="A summary.",
        chips={"Model": "gliomoe_tiny"},
        curves={
            "Training loss": {"fold 1": (epochs, [2.0, 1.0, 0.5])},
            "Validation Dice": {"fold 1": (epochs, [0.1, 0.3, 0.4])},
        },
        curves_caption="One line per fold.",
        config=f"title = '{title}'",
        provenance={"torch": "2"},
        notes=["Simulated phantoms."],
        evaluations=[Evaluation(title, 8, measures), Evaluation("scratch", 8, {})],
        caption="Means.",
        scans=scans,
        scans_caption="Two cases.",
    )


def test_nothing_is_fetched() -> None:
    html = render(page())
    outside_scripts = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    links = re.findall(r"(?:src|href|action|data)\s*=\s*[\"']?([^\"'\s>]+)", outside_scripts)
    assert links and all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"@import|url\((?!#)", outside_scripts)
    assert "default-src 'none'" in html
    assert len(html) < 10_000_000


def test_what_comes_from_outside_is_escaped() -> None:
    html = render(page(HOSTILE))
    assert "alert(1)</script>" not in html
    cases = re.search(r'<script type="application/json" id="cases">(.*?)</script>', html)
    assert cases and json.loads(cases[1])[0]["title"] == HOSTILE


def test_a_report_without_evaluations_scans_and_curves_has_no_empty_sections() -> None:
    from dataclasses import replace

    html = render(replace(page(), evaluations=[], scans=[], curves={}))
    assert "h-training" not in html
    assert "Measured on held-out cases" not in html
    assert "niivue" not in html.partition("<footer>")[0]


def test_cells() -> None:
    assert cell(Interval(0.5, 0.25, 0.75)) == ("0.500", "0.25–0.75")
    assert cell(Interval(0.5)) == ("0.500", "no interval")
    assert cell(None) == ("–", "")


def test_charts_follow_the_theme_and_keep_honest_axes() -> None:
    measures = {"Dice WT": Interval(0.93, 0.9, 0.95)}
    svg = comparison({"a & b": measures, "empty": {}}, ["Dice WT"])
    assert svg.startswith("<svg") and "currentColor" in svg and "#010203" not in svg
    assert re.findall(r"<text[^>]*>([^<]*)</text>", svg)[:5] == [
        "0",
        "0.5",
        "1",
        "a &amp; b",
        "empty",
    ]
    ids = re.findall(
        r'id="([^"]*)"', svg + curves({"Validation Dice": {"x": ([1, 2], [0.1, 0.2])}})
    )
    assert len(ids) == len(set(ids))


PROBE = """
<script>
const denied = [];
document.addEventListener("securitypolicyviolation", (e) => denied.push(e.blockedURI));
const report = (result) => { // a little later, for violations that are still to be told
  setTimeout(() => document.documentElement.dataset.probe = JSON.stringify(result), 500);
};
const look = setInterval(() => {
  const canvas = document.getElementById("canvas");
  if (canvas.dataset.state === "loading") return;
  clearInterval(look);
  if (canvas.dataset.state === "failed") return report({ state: "failed", denied });
  const gl = canvas.getContext("webgl2");
  window.gliomoeViewer.drawScene(); // the buffer can be read in the task that drew it
  const pixels = new Uint8Array(4 * gl.drawingBufferWidth * gl.drawingBufferHeight);
  const [width, height] = [gl.drawingBufferWidth, gl.drawingBufferHeight];
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  let grey = 0, coloured = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    const spread = Math.max(pixels[i], pixels[i + 1], pixels[i + 2]) -
      Math.min(pixels[i], pixels[i + 1], pixels[i + 2]);
    if (spread > 40) coloured += 1;
    else if (pixels[i] > 30) grey += 1;
  }
  const requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  report({ state: "ready", grey, coloured, total: pixels.length / 4, requests, denied });
}, 100);
</script>
"""


def browse(html: str, folder: Path, *flags: str) -> dict:
    """What the probe saw in headless Chromium, which can reach no host."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    (folder / "report.html").write_text(html.replace("<body>", f"<body>{PROBE}", 1), "utf-8")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1200,1600",
        "--virtual-time-budget=60000", *flags, "--dump-dom", f"file://{folder / 'report.html'}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    probe = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert probe, f"the page reported nothing: {done.stderr[-500:]}"
    return json.loads(probe[1].replace("&quot;", '"'))


SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@pytest.mark.slow
def test_the_browser_draws_the_scan_and_asks_nobody(tmp_path: Path) -> None:
    probe = browse(render(page()), tmp_path, *SOFTWARE_WEBGL)
    assert probe["state"] == "ready"
    assert probe["grey"] > 0.02 * probe["total"]  # tissue
    assert probe["coloured"] > 0.005 * probe["total"]  # the labels over it
    assert probe["denied"] == []
    assert [name for name in probe["requests"] if not name.startswith(("data:", "blob:"))] == []


@pytest.mark.slow
def test_without_webgl_slices_stay_and_a_request_would_be_noticed(
    tmp_path: Path,
) -> None:
    html = render(page())
    intruder = html.replace("<main>", '<img src="https://example.org/a.png"><main>', 1)
    probe = browse(intruder, tmp_path, "--disable-3d-apis")
    assert probe["state"] == "failed"
    assert probe["denied"] == ["https://example.org/a.png"]


def test_comparison_as_text() -> None:
    pretrained = Evaluation("pretrained", 8, {"Dice WT": Interval(0.8, 0.7, 0.9)})
    scratch = Evaluation("scratch", 8, {"Dice WT": Interval(0.75), "AUC IDH": Interval(0.6)})
    assert as_text([pretrained, scratch]).splitlines() == [
        "            cases  Dice WT      AUC IDH",
        "----------  -----  -----------  -----------",
        "pretrained  8      0.800        –",
        "                   0.70–0.90",
        "scratch     8      0.750        0.600",
        "                   no interval  no interval",
    ]

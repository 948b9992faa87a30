"""The HTML: well formed, alone in the world, readable by machines and safe against hostile names."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpkit.reports import build_report, light_curve, light_curve_report
from gpkit.reports.document import Report, fixed, number
from tests.reports.simulated import content

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = "<script>alert('x')</script> \" onerror=\"x & $\\frac{ {{ 7*7 }}"


class Page(HTMLParser):
    """Checks nesting and collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    made = content(60)
    sampled, other = made.kernels
    return build_report(replace(made, kernels=(sampled, replace(other, posterior=None)))).html()


def test_well_formed_and_complete(html: str) -> None:
    page = Page(html)
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    for link in page.all("a"):
        assert (link["href"] or "").removeprefix("#") in anchors
    headings = [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert headings.count("h1") == 1 and headings[0] == "h1" and headings.count("h2") == 7
    text = " ".join(page.texts)
    for words in ("Ljung–Box", "ΔAICc", "R̂", "gpkit lightcurve simulated.csv", "Seed", "one-sided", "Warning"):
        assert words in text


def test_needs_no_network(html: str) -> None:
    page = Page(html)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    for _, attributes in page.tags:
        for key in ("src", "href", "srcset", "data"):
            value = attributes.get(key) or ""
            assert value == "" or value.startswith(("data:image/", "#"))
    assert "url(" not in html and "@import" not in html
    for picture in re.findall(r"base64,([^\"]+)", html):
        data = base64.b64decode(picture)
        if data.startswith(b"\x89PNG"):
            continue
        for target in re.findall(rb"(?:href|src)=\"([^\"]*)\"", data):
            assert target.startswith((b"#", b"data:"))


def test_pictures_are_described(html: str) -> None:
    page = Page(html)
    pictures = page.all("img")
    assert len(pictures) == 2 + 7 + 4
    assert all(len(picture["alt"] or "") > 30 for picture in pictures)
    assert len(page.all("figcaption")) == len(page.all("figure"))
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    made = content(30, kernels=("drw", HOSTILE), sampled=False, name=HOSTILE, value_unit=HOSTILE, source=HOSTILE)
    made = replace(made, run=replace(made.run, command=HOSTILE, settings={HOSTILE: HOSTILE}))
    path, numbers = light_curve_report(made, tmp_path / "report.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.all("script") and not any("onerror" in attributes for _, attributes in page.tags)
    assert any(HOSTILE in text for text in page.texts)
    assert json.loads(numbers.read_text(encoding="utf-8"))["light_curve"]["name"] == HOSTILE


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("out/deep", ("out/deep/report.html", "out/deep/summary.json")),
        ("a.html", ("a.html", "a.json")),
        ("source.v2", ("source.v2/report.html", "source.v2/summary.json")),
    ],
)
def test_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, expected: tuple[str, str]) -> None:
    monkeypatch.setattr(light_curve, "build_report", lambda *_, **__: Report("Title", "", ()))
    got = light_curve_report(content(12, kernels=("drw",), sampled=False), tmp_path / where)
    assert tuple(str(path.relative_to(tmp_path)) for path in got) == expected and all(path.exists() for path in got)


def test_failure_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light_curve, "build_report", lambda *_, **__: Report("Title", "", ()))

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        light_curve_report(content(12, kernels=("drw",), sampled=False), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [1, 2, 9, 500])
def test_every_length_is_rendered(n: int) -> None:
    page = Page(build_report(content(n, sampled=False, n_limits=1, kernels=("drw",))).html())
    assert len(page.all("img")) >= 3


def test_what_is_not_known_is_left_out() -> None:
    made = content(40, kernels=("drw",), sampled=False, n_limits=0, transform="log")
    bare = replace(
        made.kernels[0], residuals=made.kernels[0].residuals[:0], loo_pit=made.kernels[0].loo_pit[:0], psd=None,
        prediction=None, parameters=(), timescales=(), formula="",
    )  # fmt: skip
    page = Page(build_report(replace(made, kernels=(bare,))).html())
    assert len(page.all("img")) == 2 and "ln(value)" in " ".join(page.texts)


def test_numbers_for_readers() -> None:
    assert [number(x) for x in (1234.5678, -0.5, 1.5e-7, 2.5e12, float("nan"), None)] == [
        "1235", "−0.5", "1.5 × 10⁻⁷", "2.5 × 10¹²", "–", "–",
    ]  # fmt: skip
    assert number(123456.0, 3) == "123456" and number(0.0) == "0"
    assert [fixed(x, 1) for x in (-0.04, 2.25, float("inf"))] == ["0.0", "2.2", "–"]

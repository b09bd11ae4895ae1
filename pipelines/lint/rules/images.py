"""SW002: images are pinned."""

import re
from collections.abc import Iterator

from pipelines.lint.findings import Severity
from pipelines.lint.package import Package
from pipelines.lint.rule import Found, Rule, about
from pipelines.project import Project

_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
_EXACT = re.compile(r"v?\d+\.\d+\.\d+([.+_-].*)?|(?:sha-|git-)?[0-9a-f]{7,40}|\d{8}([.-].*)?")


def _check(package: Package, _: Project) -> Iterator[Found]:
    for task in package.containers():
        spot = task.container["image"]
        image = task.resolve(spot)
        if not image.value:
            origin = image.origin or "nowhere"
            yield about(
                task,
                spot,
                f"takes its image from {origin}, so that nothing here says what runs: choose it where the pipeline is "
                "compiled, or suppress this with where the choice is made of pinned images only.",
                Severity.WARNING,
            )
            continue
        if _DIGEST.search(image.value):
            continue
        tag = _tag(image.value)
        if not tag:
            yield about(task, spot, f"runs {image.value} without a tag, which is latest: pin it by digest (@sha256:…).")
        elif _EXACT.fullmatch(tag):
            yield about(
                task,
                spot,
                f"runs {image.value}: a tag can be moved to another image; pin it by digest (@sha256:…).",
                Severity.WARNING,
            )
        else:
            yield about(task, spot, f"runs {image.value}, and the tag {tag} moves: pin it by digest (@sha256:…).")


def _tag(image: str) -> str:
    return image.rpartition("/")[2].partition(":")[2]


RULE = Rule(
    id="SW002",
    name="image-pinned",
    severity=Severity.ERROR,
    summary="Images are pinned by digest; a tag of one exact version is a warning.",
    why="""A tag is a name that can be given to another image tomorrow. With `latest`, no tag, or `3.11`, two runs of
one package run different code, a retry may run other code than the attempt before it, and a rollback does not roll
back. KFP's cache key holds the image's name: a moved tag is a stale hit.

A digest cannot move: `registry.example.com/train@sha256:2c6…`. `docker buildx imagetools inspect IMAGE:TAG` prints
it. A tag that names one exact version (`1.4.2`, a commit) is a warning only: registries can forbid moving those.

An image that only a run knows (an output of another task) is a warning: the linter cannot see it.""",
    check=_check,
)

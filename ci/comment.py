"""Post a text as a comment on the pull or merge request that this CI job is about, or renew the one posted before.

``python -m ci.comment FILE`` knows the request from the variables that GitHub Actions, GitLab CI and Jenkins set, and
takes the token from ``COMMENT_TOKEN``. The first line of the text, an HTML comment, says which comment is renewed.
"""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Request:
    """A pull or merge request, as far as comments go.

    Attributes:
        comments: address of its comments.
        edit: address of one of them, with ``{id}``.
        verb: what changes one.
        headers: who we are.
    """

    comments: str
    edit: str
    verb: str
    headers: dict[str, str]


def github(api: str, repository: str, number: str, token: str) -> Request:
    """A pull request at GitHub."""
    base = f"{api}/repos/{repository}/issues"
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
    return Request(f"{base}/{number}/comments", f"{base}/comments/{{id}}", "PATCH", headers)


def gitlab(api: str, project: str, number: str, token: str) -> Request:
    """A merge request at GitLab."""
    base = f"{api}/projects/{project}/merge_requests/{number}/notes"
    return Request(base, f"{base}/{{id}}", "PUT", {"PRIVATE-TOKEN": token})


def of_this_job(environment: Mapping[str, str]) -> Request | None:
    """The request that this job is about; None when it is about none, as on the main branch."""
    token = environment.get("COMMENT_TOKEN", "")
    if number := re.fullmatch(r"refs/pull/(\d+)/merge", environment.get("GITHUB_REF", "")):
        return github(environment["GITHUB_API_URL"], environment["GITHUB_REPOSITORY"], number[1], token)
    if "CI_MERGE_REQUEST_IID" in environment:
        project = environment["CI_MERGE_REQUEST_PROJECT_ID"]
        return gitlab(environment["CI_API_V4_URL"], project, environment["CI_MERGE_REQUEST_IID"], token)
    # Jenkins tells the request's address alone.
    if found := re.fullmatch(r"(https://[^/]+)/(.+?)/-/merge_requests/(\d+)", environment.get("CHANGE_URL", "")):
        return gitlab(f"{found[1]}/api/v4", found[2].replace("/", "%2F"), found[3], token)
    if found := re.fullmatch(r"https://github\.com/([^/]+/[^/]+)/pull/(\d+)", environment.get("CHANGE_URL", "")):
        return github("https://api.github.com", found[1], found[2], token)
    return None


def post(request: Request, text: str, client: httpx.Client) -> str:
    """Renew the comment with the same first line, or add one; says which."""
    marker = text.splitlines()[0]
    page: str | None = f"{request.comments}?per_page=100"
    while page:
        answer = client.get(page, headers=request.headers)
        answer.raise_for_status()
        for one in answer.json():
            if str(one["body"]).startswith(marker):
                edit = request.edit.format(id=one["id"])
                client.request(request.verb, edit, headers=request.headers, json={"body": text}).raise_for_status()
                return "renewed"
        page = answer.links.get("next", {}).get("url")
    client.post(request.comments, headers=request.headers, json={"body": text}).raise_for_status()
    return "posted"


def main() -> int:
    """Post the file named on the command line."""
    request = of_this_job(os.environ)
    if request is None:
        sys.stderr.write("Nothing to comment on: this job is about no pull or merge request.\n")
        return 0
    if not os.environ.get("COMMENT_TOKEN"):
        sys.stderr.write("No comment is posted: COMMENT_TOKEN is not set, as in requests from forks.\n")
        return 0
    text = Path(sys.argv[1]).read_text("utf-8")
    try:
        with httpx.Client(timeout=30) as client:
            done = post(request, text, client)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        sys.stderr.write(f"The comment was refused with {status}: may COMMENT_TOKEN write comments there?\n")
        return 1
    except httpx.TransportError as error:
        sys.stderr.write(f"The comment could not be posted: {error}. Run the job again.\n")
        return 1
    sys.stderr.write(f"The comment was {done}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The pod that a step runs in, as the owner of what it makes."""

import os


def owner() -> dict[str, str] | None:
    """This pod as the owner of what it makes; None where KFP does not tell which pod this is."""
    name, uid = os.environ.get("KFP_POD_NAME", ""), os.environ.get("KFP_POD_UID", "")
    return {"name": name, "uid": uid} if name and uid else None

#!/usr/bin/env python3
"""Checks Kubernetes manifests against the schema in the package kubernetes (37): every field must exist and have its type,
and every required field must be there.

    check_manifest.py deploy/kubernetes-sweep.yaml
"""

import sys

import yaml
from kubernetes import client
from pydantic import ValidationError


def main() -> int:
    status = 0
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            documents = list(yaml.safe_load_all(file))
        for document in documents:
            # batch/v1 Job is V1Job.
            name = document["apiVersion"].rsplit("/", 1)[-1].capitalize() + document["kind"]
            try:
                getattr(client, name).model_validate(document)
            except ValidationError as error:
                print(f"{path}: {error}", file=sys.stderr)
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())

"""Makes calls to AWS with boto3: reads a list of [service, operation, parameters] as JSON from
standard input, prints the list of answers.

Usage: moto_calls.py URL CA_FILE; the credentials come from the environment.
"""
import json
import sys

import boto3
from botocore.config import Config


def main():
    url, ca_file = sys.argv[1:]
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
    clients, answers = {}, []
    for service, operation, parameters in json.load(sys.stdin):
        if service not in clients:
            clients[service] = boto3.client(
                service, region_name="eu-west-1", endpoint_url=url, verify=ca_file, config=config)
        answer = getattr(clients[service], operation)(**parameters)
        answer.pop("ResponseMetadata", None)
        answers.append(answer)
    json.dump(answers, sys.stdout, default=str)


main()

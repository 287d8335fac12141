"""A tour of the token broker: get, consent, get, refresh, list, revoke.

    TOKEN_BROKER_API_KEY=tb_… python tour.py 127.0.0.1:50051 --provider google --service gmail --user alice \\
        --api https://openidconnect.googleapis.com/v1/userinfo
"""

import argparse
import os
import time
import urllib.error
import urllib.request

from broker import Broker, name_of


def show(answer):
    """One line about an answer of GetCredential or Refresh. Never the token itself."""
    if answer.WhichOneof("result") == "credential":
        found = answer.credential
        return f"token of generation {found.generation} for {found.account.label or found.key.user_id}"
    return f"authorization required, {name_of(answer.authorization_required, 'reason')}"


def call_api(url, credential):
    """Uses the token as its type says; the HTTP status."""
    header = f"{credential.token_type} {credential.access_token}"
    request = urllib.request.Request(url, headers={"Authorization": header})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def wait_for_consent(broker, flow_id):
    """Polls until the user has answered."""
    while True:
        flow = broker.GetFlow(flow_id=flow_id).flow
        if name_of(flow, "status") not in ("PENDING", "RETURNED", "EXCHANGING"):
            return name_of(flow, "status")
        time.sleep(0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    for name in ("provider", "service", "user", "api"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()

    broker = Broker(args.address, os.environ["TOKEN_BROKER_API_KEY"])
    key = {"provider": args.provider, "user_id": args.user, "service": args.service}

    answer = broker.GetCredential(key=key, begin_if_missing={"client_state": "tour"})
    print("get:", show(answer), flush=True)
    if answer.WhichOneof("result") == "authorization_required":
        flow = answer.authorization_required.flow
        print("link:", flow.authorization_url, flush=True)
        print("consent:", wait_for_consent(broker, flow.flow_id), flush=True)
        answer = broker.GetCredential(key=key)
        print("get:", show(answer), flush=True)
    print("api:", call_api(args.api, answer.credential), flush=True)

    # As if the API had answered 401: name the generation that did not work.
    used = answer.credential
    newer = broker.Refresh(key=key, expected_generation=used.generation)
    print("refresh:", show(newer), flush=True)
    again = broker.Refresh(key=key, expected_generation=used.generation)
    print("refresh again:", show(again), flush=True)
    assert again.credential.access_token == newer.credential.access_token != used.access_token
    print("api:", call_api(args.api, newer.credential), flush=True)

    for row in broker.ListCredentials(user_id=args.user).credentials:
        services = ", ".join(row.services)
        print(f"list: {row.user_id} at {row.provider}, {services}: {name_of(row, 'status')}", flush=True)

    revoked = broker.Revoke(key=key)
    print("revoke:", name_of(revoked, "provider_revocation"), flush=True)
    print("api:", call_api(args.api, newer.credential), flush=True)
    print("get:", show(broker.GetCredential(key=key)), flush=True)


if __name__ == "__main__":
    main()

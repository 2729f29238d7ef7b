"""Sends scoring requests for parcels, and reads the answers.

Run it where `tailrace up` runs, or with the variables that `tailrace env` prints.
"""

from __future__ import annotations

from tailrace import Client, Rejected

PARCELS = {
    "P-1": {"distance": 80.0, "weight": 1.5, "express": True},
    "P-2": {"distance": 950.0, "weight": 12.0, "express": False},
    "P-3": {"distance": 400.0, "weight": 4.0, "express": False},
}


def main() -> None:
    with Client() as client:
        # Many at once: the answers come on a topic, to whoever reads it from before the requests on.
        answers = client.predictions("parcels", idle=60)
        waiting = {client.send("parcels", parcel, key=key) for key, parcel in PARCELS.items()}
        for event in answers:
            if event["request_id"] in waiting:
                waiting.remove(event["request_id"])
                print(f"{event['key']}: {event['action']} {event['score']:.3f} by version {event['version']}")
            if not waiting:
                break

        # One, and its answer. A request that breaks the contract is refused with the field and the reason.
        try:
            client.predict(
                "parcels", {"distance": -5.0, "weight": 1.0, "express": False}, key="P-4", timeout=60
            )
        except Rejected as refusal:
            print(f"P-4: rejected, {refusal.field}: {refusal.reason}")

        # Days later, when it is known: the truth about one of them, by the id of its request.
        event = client.predict("parcels", PARCELS["P-2"], key="P-2", timeout=60)
        client.label("parcels", True, key="P-2", request_id=event["request_id"])
        print("P-2: labelled")


if __name__ == "__main__":
    main()

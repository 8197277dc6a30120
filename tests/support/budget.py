"""The budget's answers, told apart by their kind: as tuples, a probe's grant and a refusal for one second are equal."""

from alpacli.ports import Granted, Refused, Wait


def probes(answer: Granted | Wait | Refused) -> bool:
    """Tell whether a request may go as the one that finds out for all whether the server is back."""
    return isinstance(answer, Granted) and answer.probe

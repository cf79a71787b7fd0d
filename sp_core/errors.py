"""The exceptions whose text is meant for the person at the screen."""


class SpError(Exception):
    """A mistake that the person can mend: one sentence with the value, the rule and the next step.

    Pages show the text as it is; the command line prints it on one line of standard error and exits with 2.
    Anything else that is raised is a fault of the program.
    """


class NeedsGraph(SpError):
    """The question needs a forward pass, but of this network only the weights are known."""

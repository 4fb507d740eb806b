"""A language model that is a table: the log-probabilities of the next token depend on the last one only. For tests of output quality."""

from playground.core.engine import Engine


class TableModel(Engine):
    """Logits [vocabulary, vocabulary] by last token. A text's tokens are its characters' codes, modulo the vocabulary less one, after
    `head`. `noise`: what another batch shape adds to the logits."""

    title = "Table"

    def __init__(self, logits, head=(), noise=None):
        self.logits, self.head, self.noise = logits, tuple(head), noise
        self.asked = []

    def prepare(self, prompt, chat):
        assert chat is False
        return prompt, (*self.head, *(ord(character) % (len(self.logits) - 1) for character in prompt))

    def score(self, token_ids, stepwise=False):
        import torch

        self.asked.append((tuple(token_ids), stepwise))
        logits = self.logits if not stepwise or self.noise is None else self.logits + self.noise
        return torch.log_softmax(logits[list(token_ids)[:-1]], dim=-1)


def random_table(vocabulary, seed):
    """Random logits [vocabulary, vocabulary], float32."""
    import torch

    return torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(seed)) * 2

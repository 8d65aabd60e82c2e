"""The greedy soup."""

from __future__ import annotations

from typing import NamedTuple

from fb_ensemble.ensemble import MemberMethod, order_of
from fb_ensemble.members import members_of
from fb_ensemble.records import GREEDY_SOUP
from fb_ensemble.soups.uniform_soup import UniformSoup
from fb_ensemble.validation import Samples, mean_over_tasks, scores, used
from fusionbench_core import (
    Fused,
    FusionJob,
    LiveMembers,
    Members,
    ModelPool,
    StateDictCheckpoint,
    implements,
)


class Score(NamedTuple):
    """Means over all tasks: accuracy as a fraction, and negative cross-entropy in nats."""

    accuracy: float
    certainty: float


@implements(GREEDY_SOUP)
class GreedySoup(MemberMethod):
    r"""The mean of weights, taking one model after the other and keeping those that do no harm.

    From the model of the highest validation accuracy $A$ to that of the lowest, with $S = \{\}$ first:

    $$S \leftarrow S \cup \{t\} \quad\text{if}\quad
      A\Big(\frac{1}{|S| + 1} \sum_{s \in S \cup \{t\}} \theta_s\Big)
      \ge A\Big(\frac{1}{|S|} \sum_{s \in S} \theta_s\Big), \qquad
      \theta = \frac{1}{|S|} \sum_{s \in S} \theta_s$$

    Notes:
        On validation data the result is no worse than the best model. The accuracy is the mean over all
        tasks of the task pool. Models of equal accuracy go by their loss. T - 1 soups are made and
        measured, after the models themselves, so each validation sample is asked for T times; in memory
        are one soup and its live module.
        `uniform_soup` with the `ingredients` of the report gives the same weights again, without data.

    Reference:
        Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482, recipe 1.
    """

    validation_samples: Samples = None

    def memory(self, pool: ModelPool) -> int:
        # The best soup so far, and another one with its live module.
        return max(super().memory(pool), 3 * max(pool.live_bytes(name) for name in pool))

    def fuse(self, job: FusionJob) -> Fused:
        members = members_of(job.pool, order_of(self, job.pool), self.in_memory)
        alone, samples = self._scores(job, members)
        del members
        first, *others = sorted(alone, key=lambda name: alone[name], reverse=True)
        chosen, accuracy = [first], alone[first].accuracy
        state = job.merge(UniformSoup(ingredients=(first,)))
        for step, name in enumerate(others, 1):
            trial = job.merge(UniformSoup(ingredients=(*chosen, name)))
            soup = LiveMembers({"soup": job.pool.build(StateDictCheckpoint(trial))})
            found = self._scores(job, soup)[0]["soup"].accuracy
            if found >= accuracy:
                chosen, accuracy, state = [*chosen, name], found, trial
            # The next soup is made before these names stand for others.
            del trial, soup
            job.progress(step, len(others), f"accuracy {accuracy:.4f} with {', '.join(chosen)}")
        return Fused.weights(
            state,
            details={
                "ingredients": chosen,
                "validation_accuracy": {name: score.accuracy for name, score in alone.items()},
                "validation_accuracy_of_the_soup": accuracy,
                "validation_samples": samples,
            },
        )

    def _scores(self, job: FusionJob, members: Members) -> tuple[dict[str, Score], dict[str, int]]:
        """Score of each member, and the number of samples of each task."""
        found = scores(job, members, self.validation_samples)
        accuracies = mean_over_tasks([each.accuracies for each in found.values()]).tolist()
        losses = mean_over_tasks([each.losses for each in found.values()]).tolist()
        return {
            name: Score(accuracy, -loss) for name, accuracy, loss in zip(members.names, accuracies, losses)
        }, used(found)

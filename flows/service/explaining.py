"""Lists with their reasons, for requests that ask for them: a queue of its own, and reasons as the service says them.

Knows recommenders and the service's schemas; knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from prorec.flows.service import exploring, schemas
from prorec.flows.service.batching import Batcher, Found, Loaded, Question
from prorec_core.errors import UserError

if TYPE_CHECKING:
    from prorec.flows.service.models import ModelKeeper
    from prorec_core.data.sequences import Sequences
    from prorec_core.generation.explain import Reason
    from prorec_core.generation.recommender import Recommender
    from prorec_core.generation.rule_book import Left
    from prorec_core.metrics.top import TopItems

POPULAR = "popular"
MOST_WAITING = 4 * schemas.MOST_HISTORIES


def queue(keeper: ModelKeeper) -> Batcher:
    """A queue of requests that ask for reasons, each answered by itself by the model then in use."""

    def answer_all(questions: Sequence[Question]) -> list[Found | UserError]:
        assert keeper.current is not None
        return [answer(keeper.current, question) for question in questions]

    return Batcher(answer_all, MOST_WAITING, 1)


def answer(loaded: Loaded, question: Question) -> Found | UserError:
    """The lists of a request with their reasons, or what is wrong with its rule."""
    from prorec_core.generation.explain import explain, reasons

    model = cast("Recommender", loaded.recommender)
    try:
        left = None if question.rule is None else model.rules.left(question.rule)
    except UserError as error:
        return error
    known = model.numbered(question.histories)
    if question.every:
        return Found(loaded.version, [], [], explored=_explored(loaded, model, question, known, left))
    rules = None if left is None else [left.allowed] * known.n_users
    told = explain(model, known, question.k, mask_history=_masks(model, question), rules=rules)
    return Found(
        loaded.version,
        model.named(told.lists),
        [model.unknown(history) for history in question.histories],
        left,
        [[said(model, reason) for reason in reasons(model, told, user)] for user in range(known.n_users)],
    )


def _explored(
    loaded: Loaded, model: Recommender, question: Question, known: Sequences, left: Left | None
) -> exploring.Explored:
    """The lists of all scores for one history, the one that recommends first."""
    from prorec_core.generation.explain import explain, reasons

    rule, masked = None if left is None else left.allowed, _masks(model, question)
    lists: list[exploring.ScoreList] = []

    def add(scorer: str, best: TopItems, why: Sequence[Reason] | None) -> None:
        items = []
        for rank, (item, score) in enumerate(zip(best.items_UK[0], best.scores_UK[0], strict=True), start=1):
            if item < 0:
                break
            reason = {} if why is None else {"why": said(model, why[rank - 1])}
            about = named(model, int(item)).model_dump()
            items.append(exploring.ExploredItem(rank=rank, score=float(score), **about, **reason))
        lists.append(exploring.ScoreList(scorer=scorer, recommends=not lists, items=items))

    if known.offsets[-1]:
        found = model.candidates(known, question.k, mask_history=masked, rules=[rule])
        for scoring in (model.scoring, *model.others):
            told = explain(model, known, question.k, mask_history=masked, rules=[rule], scoring=scoring, found=found)
            add(scoring.name, told.lists, reasons(model, told, 0))
    add(POPULAR, model.popular(known.items if masked else known.items[:0], question.k, rule), None)
    told_rule = {} if left is None else {"rule": about_rule(left)}
    return exploring.Explored(
        model=schemas.Model(name=loaded.version.name, version=loaded.version.version),
        history=[named(model, int(item)) for item in known.items],
        unknown_items=model.unknown(question.histories[0]),
        lists=lists,
        **told_rule,
    )


def _masks(model: Recommender, question: Question) -> bool:
    return model.masks(None if question.keep_seen is None else not question.keep_seen)


def named(model: Recommender, item: int) -> exploring.Named:
    """An item by id and title."""
    return exploring.Named(
        item_id=model.item_ids[item], title=model.titles[item], new=bool(model.train_counts[item] == 0)
    )


def about_rule(left: Left) -> schemas.AboutRule:
    """What a rule leaves, as the service says it."""
    return schemas.AboutRule(allowed=left.allowed.count, unknown=left.unknown, unknown_items=list(left.unknown_items))


def said(model: Recommender, reason: Reason) -> schemas.Why:
    """A reason as the service says it."""
    parts = []
    for part in reason.parts:
        about = {} if part.item is None else {"item_id": model.item_ids[part.item], "title": model.titles[part.item]}
        value = {} if part.value is None else {"value": part.value}
        parts.append(schemas.Part(name=part.name, contribution=part.contribution, **about, **value))
    codes = []
    for step in reason.steps:
        log_p = {} if step.log_probability is None else {"log_probability": step.log_probability}
        codes.append(schemas.Code(code=step.code, items=step.shared.items, words=list(step.shared.words), **log_p))
    return schemas.Why(scorer=reason.scorer, baseline=reason.baseline, parts=parts, codes=codes)

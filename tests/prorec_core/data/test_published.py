"""Small files as publishers lay them out, read as they are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from prorec_core.config_data import DataConfig
from prorec_core.data.raw import read_tables
from prorec_core.data.sources import open_source
from prorec_core.data.stage import preprocess, source_digest
from prorec_core.data.tables import RawTable
from prorec_core.errors import UserError

USERS, ITEMS = 6, 5
LOG = [(user, (user + step) % ITEMS, 1_300_000_000 + 60 * step) for user in range(USERS) for step in range(3)]
Write = Callable[[Path], None]


def put(path: Path, lines: Iterable[str], encoding: str = "utf-8") -> None:
    raw = "".join(f"{line}\n" for line in lines).encode(encoding)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)


def amazon_2014(folder: Path) -> None:
    reviews = [{"reviewerID": f"A{u}", "asin": f"B{i}", "overall": 5.0, "unixReviewTime": t} for u, i, t in LOG]
    put(folder / "reviews_Toys_5.json.gz", map(json.dumps, reviews))
    meta = [{"asin": f"B{i}", "title": f'Bob\'s "{i}"', "categories": [["Toys", "Games"]]} for i in range(ITEMS)]
    put(folder / "meta_Toys.json.gz", map(repr, [*meta, {"asin": "B9", "salesRank": {"Toys": 1}}]))


def amazon_2014_ratings(folder: Path) -> None:
    put(folder / "ratings_Toys.csv", [f"A{u},B{i},5.0,{t}" for u, i, t in LOG])
    put(folder / "meta_Toys.json", [repr({"asin": f"B{i}", "title": "t", "categories": []}) for i in range(ITEMS)])


def amazon_2018(folder: Path) -> None:
    reviews = [{"reviewerID": f"A{u}", "asin": f"B{i}", "overall": 5.0, "unixReviewTime": t} for u, i, t in LOG]
    put(folder / "Toys_5.json.gz", map(json.dumps, reviews))
    put(
        folder / "meta_Toys.json.gz",
        [json.dumps({"asin": f"B{i}", "title": "t", "category": ["Toys"]}) for i in range(ITEMS)],
    )


def amazon_2023(folder: Path) -> None:
    reviews = [
        {"user_id": f"A{u}", "asin": "x", "parent_asin": f"B{i}", "rating": 5.0, "timestamp": t * 1000}
        for u, i, t in LOG
    ]
    put(folder / "Toys.jsonl.gz", map(json.dumps, reviews))
    amazon_2023_meta(folder)


def amazon_2023_meta(folder: Path) -> None:
    meta = [{"parent_asin": f"B{i}", "title": "t", "categories": ["Toys"], "details": {}} for i in range(ITEMS)]
    put(folder / "meta_Toys.jsonl.gz", map(json.dumps, meta))


def amazon_2023_ratings(folder: Path) -> None:
    put(
        folder / "Toys.csv.gz",
        ["user_id,parent_asin,rating,timestamp", *(f"A{u},B{i},5.0,{t}000" for u, i, t in LOG)],
    )
    amazon_2023_meta(folder)


def movielens_100k(folder: Path) -> None:
    put(folder / "ml-100k" / "u.data", [f"{u}\t{i}\t4\t{t}" for u, i, t in LOG])
    flags = "0|0|1" + "|0" * 15 + "|1"
    titles = [f"{i}|Café {i} (1995)|01-Jan-1995||http://x/{i}|{flags}" for i in range(ITEMS)]
    put(folder / "ml-100k" / "u.item", titles, "latin-1")


def movielens_1m(folder: Path) -> None:
    put(folder / "ml-1m" / "ratings.dat", [f"{u}::{i}::4::{t}" for u, i, t in LOG])
    titles = [f"{i}::Café: {i} (1995)::Adventure|Western" for i in range(ITEMS)]
    put(folder / "ml-1m" / "movies.dat", titles, "latin-1")
    put(folder / "ml-1m" / "users.dat", [f"{u}::F::1::10::48067" for u in range(USERS)])


def movielens_20m(folder: Path) -> None:
    put(folder / "ratings.csv", ["userId,movieId,rating,timestamp", *(f"{u},{i},4.0,{t}" for u, i, t in LOG)])
    put(
        folder / "movies.csv",
        ["movieId,title,genres", *(f'{i},"Café, {i} (1995)",Adventure|Western' for i in range(ITEMS))],
    )


def lastfm(folder: Path) -> None:
    put(
        folder / "user_taggedartists-timestamps.dat",
        ["userID\tartistID\ttagID\ttimestamp", *(f"{u}\t{i}\t1\t{t}000" for u, i, t in LOG)],
    )
    put(
        folder / "artists.dat",
        ["id\tname\turl\tpictureURL", *(f'{i}\t"Sigur Rós\tu\tp' for i in range(ITEMS))],
        "latin-1",
    )


def delicious(folder: Path) -> None:
    put(
        folder / "user_taggedbookmarks-timestamps.dat",
        ["userID\tbookmarkID\ttagID\ttimestamp", *(f"{u}\t{i}\t1\t{t}000" for u, i, t in LOG)],
    )
    put(
        folder / "bookmarks.dat",
        ["id\tmd5\ttitle\turl\tmd5Principal\turlPrincipal", *(f"{i}\tm\tt\tu\tm\tu" for i in range(ITEMS))],
        "latin-1",
    )


def steam(folder: Path) -> None:
    lines = [
        f"{{u'username': u'K\\xe9 {u}', u'product_id': u'{i}', u'date': u'2011-03-{1 + t // 60 % 20:02}'}}"
        for u, i, t in LOG
    ]
    put(folder / "steam_reviews.json.gz", lines)
    put(
        folder / "steam_games.json.gz",
        [f"{{u'id': u'{i}', u'app_name': u'a', u'title': u't', u'genres': [u'Indie']}}" for i in range(ITEMS)],
    )


def yelp(folder: Path) -> None:
    put(
        folder / "yelp_dataset" / "yelp_academic_dataset_review.json",
        [
            json.dumps({"user_id": f"u{u}", "business_id": f"b{i}", "stars": 5.0, "date": "2018-07-07 22:09:11"})
            for u, i, _ in LOG
        ],
    )
    put(
        folder / "yelp_dataset" / "yelp_academic_dataset_business.json",
        [json.dumps({"business_id": f"b{i}", "name": "n", "categories": "Food, Pubs"}) for i in range(ITEMS)],
    )


def goodreads(folder: Path) -> None:
    put(
        folder / "goodreads_interactions_poetry.json.gz",
        [
            json.dumps({"user_id": f"u{u}", "book_id": f"{i}", "date_added": "Fri Aug 25 13:55:02 -0700 2017"})
            for u, i, _ in LOG
        ],
    )
    put(
        folder / "goodreads_books_poetry.json.gz",
        [json.dumps({"book_id": f"{i}", "title": "t", "description": "d"}) for i in range(ITEMS)],
    )


def hm(folder: Path) -> None:
    put(
        folder / "transactions_train.csv",
        ["t_dat,customer_id,article_id,price,sales_channel_id", *(f"2018-09-20,c{u},0{i},0.05,2" for u, i, _ in LOG)],
    )
    put(
        folder / "articles.csv",
        ["article_id,prod_name,product_type_name,detail_desc", *(f'0{i},Top,Vest,"a, b"' for i in range(ITEMS))],
    )


def mind(folder: Path) -> None:
    lines = [
        f"{u}\tU{u}\t11/1{step}/2019 9:05:58 AM\tN{u % ITEMS}\tN{(u + step) % ITEMS}-1 N4-0"
        for u in range(USERS)
        for step in (2, 1)
    ]
    put(folder / "MINDsmall_train" / "behaviors.tsv", [*lines, "9\tU0\t11/12/2019 9:05:58 PM\t\tN1-0"])
    put(
        folder / "MINDsmall_train" / "news.tsv",
        [f'N{i}\tnews\tpolitics\tA "title"\tabstract\thttp://x\t[]\t[]' for i in range(ITEMS)],
    )


def amazon_m2(folder: Path) -> None:
    rows = [f"\"['B{u % ITEMS}' 'B{(u + 1) % ITEMS}']\",B{(u + 2) % ITEMS},UK" for u in range(USERS)]
    put(folder / "sessions_train.csv", ["prev_items,next_item,locale", *rows])
    put(folder / "products_train.csv", ["id,locale,title,price,brand", *(f"B{i},UK,t,1.0,b" for i in range(ITEMS))])


def letter(folder: Path) -> None:
    histories: dict[str, list[int]] = {}
    for user, item, _ in LOG:
        histories.setdefault(f"{user}", []).append(item)
    put(folder / "Toys.inter.json", [json.dumps(histories, indent=1)])
    items = {f"{i}": {"title": "t", "categories": "a,b", "description": None} for i in range(ITEMS)}
    put(folder / "Toys.item.json", [json.dumps(items)])


KINDS: dict[str, tuple[str, Write, dict[str, Any], str]] = {
    "2014": ("amazon", amazon_2014, {}, 'Bob\'s "0". Toys, Games'),
    "2014 ratings": ("amazon", amazon_2014_ratings, {}, "t"),
    "2018": ("amazon", amazon_2018, {}, "t. Toys"),
    "2023": ("amazon", amazon_2023, {}, "t. Toys"),
    "2023 ratings": ("amazon", amazon_2023_ratings, {}, "t. Toys"),
    "100k": ("movielens", movielens_100k, {}, "Café 0 (1995). Adventure, Western"),
    "1m": ("movielens", movielens_1m, {}, "Café: 0 (1995). Adventure, Western"),
    "20m": ("movielens", movielens_20m, {}, "Café, 0 (1995). Adventure, Western"),
    "lastfm": ("hetrec", lastfm, {"text_columns": ["title"]}, '"Sigur Rós'),
    "delicious": ("hetrec", delicious, {"text_columns": ["title"]}, "t"),
    "steam": ("steam", steam, {}, "a. Indie"),
    "yelp": ("yelp", yelp, {}, "n. Food, Pubs"),
    "goodreads": (
        "goodreads",
        goodreads,
        {"text_columns": ["title", "description"], "timestamp_format": "%a %b %d %H:%M:%S %z %Y"},
        "t. d",
    ),
    "hm": ("hm", hm, {"text_columns": ["title", "categories", "detail_desc"]}, "Top. Vest. a, b"),
    "mind": ("mind", mind, {}, 'A "title". news'),
    "m2": ("amazon_m2", amazon_m2, {"text_columns": ["title", "brand"]}, "t. b"),
    "letter": ("letter", letter, {}, "t. a,b"),
}


def of(kind: str, folder: Path, **changes: Any) -> DataConfig:
    source, write, settings, _ = KINDS[kind]
    write(folder)
    small = {"source": source, "path": str(folder), "min_user_interactions": 3, "min_item_interactions": 1}
    return DataConfig(**{**small, **settings, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_publishers_are_read_as_they_are(kind: str, tmp_path: Path) -> None:
    chosen = of(kind, tmp_path)
    found = preprocess(chosen)
    assert (found.sequences.n_users, found.sequences.n_items, len(found.sequences.items)) == (USERS, ITEMS, len(LOG))
    assert found.items["text"][0] == KINDS[kind][3]
    first = found.items["item_id"].gather(found.sequences.items[:3])
    assert [text[-1] for text in first] == ["0", "1", "2"], "a user's items are in the order of time"
    before = source_digest(chosen)
    path = next(path for path in tmp_path.rglob("*") if path.is_file() and "users" not in path.name)
    path.write_bytes(path.read_bytes() + b"\n")
    assert source_digest(chosen) != before


def test_counts_that_others_found_are_held_against_those_found_here(tmp_path: Path) -> None:
    chosen = of("20m", tmp_path, expected={"users": USERS, "items": ITEMS})
    assert not preprocess(chosen).profile["warnings"]
    other = of("20m", tmp_path, expected={"users": USERS, "interactions": 99, "source": "a paper"})
    (told,) = preprocess(other).profile["warnings"]
    assert f"{len(LOG)} interactions where 99 are expected (a paper)" in told and "users" not in told


def refusal(chosen: DataConfig) -> str:
    with pytest.raises(UserError) as caught:
        preprocess(chosen)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_missing_or_could_be_several_is_told(tmp_path: Path) -> None:
    assert "no two files as u.data and u.item; or ratings.dat" in refusal(
        DataConfig(source="movielens", path=str(tmp_path))
    )
    chosen = of("2014", tmp_path)
    amazon_2023(tmp_path)
    assert "several pairs of files could be meant" in refusal(chosen)
    picked = chosen.model_copy(update={"interactions_file": "reviews_Toys_5.json.gz"})
    assert preprocess(picked).profile["layout"] == "Amazon 2014"


def test_a_row_is_named_by_its_line_and_fields_are_counted(tmp_path: Path) -> None:
    chosen = of("1m", tmp_path)
    path = tmp_path / "ml-1m" / "ratings.dat"
    path.write_text(path.read_text().replace("::4::", "::", 1))
    assert "line 1 has 3 fields, and there must be 4" in refusal(chosen)
    movielens_1m(tmp_path)
    path.write_text(path.read_text() + "7::1::4::soon\n")
    assert f"line {len(LOG) + 1}" in refusal(chosen)
    movielens_1m(tmp_path)
    titles = tmp_path / "ml-1m" / "movies.dat"
    titles.write_bytes(titles.read_bytes() + "7::Žižek!::Documentary\n".encode())
    assert "in two encodings" in refusal(chosen)


def test_a_session_that_is_no_list_is_told_with_its_line(tmp_path: Path) -> None:
    chosen = of("m2", tmp_path)
    put(tmp_path / "sessions_train.csv", ["prev_items,next_item,locale", "['B1'],B2,UK", "B1,B2,UK"])
    assert "line 3" in refusal(chosen)
    chosen = of("mind", tmp_path / "news")
    path = tmp_path / "news" / "MINDsmall_train" / "behaviors.tsv"
    path.write_text(path.read_text() + "9\tU0\t11/12/2019 9:05:58 PM\tN1\tN1\n")
    assert f"line {2 * USERS + 2}" in refusal(chosen)


def test_rows_made_of_rows_keep_their_line(tmp_path: Path) -> None:
    place = open_source(of("m2", tmp_path)).interactions().place
    assert [place.row(row) for row in (0, 2, 3, 17)] == ["line 2", "line 2", "line 3", "line 7"]


def test_times_before_1970_are_an_error_or_come_first(tmp_path: Path) -> None:
    chosen = of("lastfm", tmp_path)
    path = tmp_path / "user_taggedartists-timestamps.dat"
    path.write_text(f"{path.read_text()}0\t3\t1\t-428720400000\n")
    assert f"holds a negative time in line {len(LOG) + 2}" in refusal(chosen)
    found = preprocess(chosen.model_copy(update={"negative_times": "zero"}))
    assert found.items["item_id"][int(found.sequences.items[0])] == "3" and found.timestamps[0] == 0
    assert any("1 times are negative" in each for each in found.profile["warnings"])
    # Numbers too, and what a text says that is no number is still told.
    frame = pl.DataFrame({"user_id": ["0", "0"], "item_id": ["1", "2"], "timestamp": [-5, 7]})
    settings = chosen.model_copy(update={"negative_times": "zero", "unknown_items": "keep"})
    tables = (RawTable.of_frame(frame, "log"), open_source(chosen).items())
    assert read_tables(settings, *tables)[0]["timestamp"].to_list() == [0, 7]
    path.write_text(f"{path.read_text()}0\t3\t1\t-soon\n")
    assert "holds what is no time" in refusal(chosen.model_copy(update={"negative_times": "zero"}))


def test_an_item_that_stands_there_twice(tmp_path: Path) -> None:
    chosen = of("2018", tmp_path)
    more = [json.dumps({"asin": "B0", "title": "other", "category": []})]
    meta = tmp_path / "meta_Toys.json.gz"
    meta.write_bytes(meta.read_bytes() + gzip.compress((more[0] + "\n").encode(), mtime=0))
    assert "data.repeated_items=first" in refusal(chosen)
    found = preprocess(chosen.model_copy(update={"repeated_items": "first"}))
    assert found.items["text"][0] == "t. Toys" and any(
        "1 rows are of items" in each for each in found.profile["warnings"]
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("inter", '{"1": [1, 2], "1": [3]}', "the key '1' stands there twice"),
        ("inter", '{"1": [1, 2]', "it is no JSON"),
        ("inter", "[1, 2]", "holds no object"),
        ("inter", '{"1": [1.5]}', "has no list of items"),
        ("inter", '{"1": [true]}', "has no list of items"),
        ("inter", "[" * 100_000, "nested too deep"),
        ("item", '{"1": "t"}', "has no fields"),
        ("item", '{"1": {"title": "a", "title": "b"}}', "has a field twice"),
    ],
)
def test_objects_that_are_no_histories_or_items(tmp_path: Path, name: str, text: str, said: str) -> None:
    chosen = of("letter", tmp_path)
    (tmp_path / f"Toys.{name}.json").write_text(text)
    assert said in refusal(chosen)

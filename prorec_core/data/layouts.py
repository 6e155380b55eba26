"""How published data sets lay out their files: the names of these, and which of their columns hold what.

Knows names of files and columns as publishers chose them. Knows nothing of how they are read.

Every layout gives its columns the names that `data` has as defaults: user_id, item_id, timestamp, rating; title,
categories and others. Patterns of names leave out the suffix of a compression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TWO_COLONS = "::"
"""The separator of MovieLens' older files."""


@dataclass(frozen=True)
class Form:
    """One file of a layout."""

    files: str
    """Pattern of its name."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """By our name the file's own, where they differ."""
    but: tuple[str, ...] = ()
    """Patterns of names that are other files."""
    separator: str = ""
    """Of its fields, without quotes, in UTF-8 or Latin-1; where there is none, the suffix tells the format."""
    header: tuple[str, ...] = ()
    """Names of the columns where the file has none."""
    split: Mapping[str, str] = field(default_factory=dict)
    """Columns whose texts are lists, by our name, and what stands between the parts."""
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns that list the names of those others that hold a 1."""


@dataclass(frozen=True)
class Layout:
    """Two files that belong together."""

    name: str
    interactions: Form
    items: Form


_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_REVIEWS = {"user_id": "reviewerID", "item_id": "asin", "rating": "overall", "timestamp": "unixReviewTime"}
_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_META_2014 = Form("meta_*.json", {"item_id": "asin"})
_META_2023 = Form("meta_*.jsonl", {"item_id": "parent_asin", "brand": "store"})
_TAGGED = {"user_id": "userID"}

LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "amazon": (
        Layout("Amazon 2014", Form("reviews_*.json", _REVIEWS), _META_2014),
        Layout("Amazon 2014, ratings", Form("ratings_*.csv", separator=",", header=_RATINGS), _META_2014),
        Layout(
            "Amazon 2018",
            Form("*.json", _REVIEWS, but=("meta_*", "reviews_*")),
            Form("meta_*.json", {"item_id": "asin", "categories": "category"}),
        ),
        Layout("Amazon 2023", Form("*.jsonl", {"item_id": "parent_asin"}, but=("meta_*",)), _META_2023),
        Layout("Amazon 2023, ratings", Form("*.csv", {"item_id": "parent_asin"}, but=("ratings_*",)), _META_2023),
    ),
    "movielens": (
        Layout(
            "MovieLens 100K",
            Form("u.data", separator="\t", header=_RATINGS),
            Form(
                "u.item",
                separator="|",
                header=("item_id", "title", "released", "video_released", "url", *_GENRES),
                flags={"categories": _GENRES},
            ),
        ),
        Layout(
            "MovieLens 1M, 10M",
            Form("ratings.dat", separator=TWO_COLONS, header=_RATINGS),
            Form(
                "movies.dat",
                separator=TWO_COLONS,
                header=("item_id", "title", "categories"),
                split={"categories": "|"},
            ),
        ),
        Layout(
            "MovieLens 20M, 25M, 32M",
            Form("ratings.csv", {"user_id": "userId", "item_id": "movieId"}),
            Form("movies.csv", {"item_id": "movieId", "categories": "genres"}, split={"categories": "|"}),
        ),
    ),
    "hetrec": (
        Layout(
            "HetRec Last.fm",
            Form("user_taggedartists-timestamps.dat", {**_TAGGED, "item_id": "artistID"}, separator="\t"),
            Form("artists.dat", {"item_id": "id", "title": "name"}, separator="\t"),
        ),
        Layout(
            "HetRec Delicious",
            Form("user_taggedbookmarks-timestamps.dat", {**_TAGGED, "item_id": "bookmarkID"}, separator="\t"),
            Form("bookmarks.dat", {"item_id": "id"}, separator="\t"),
        ),
    ),
    "steam": (
        Layout(
            "Steam",
            Form("steam_reviews.json", {"user_id": "username", "item_id": "product_id", "timestamp": "date"}),
            Form("steam_games.json", {"item_id": "id", "title": "app_name", "categories": "genres"}),
        ),
    ),
    "yelp": (
        Layout(
            "Yelp",
            Form(
                "yelp_academic_dataset_review.json", {"item_id": "business_id", "rating": "stars", "timestamp": "date"}
            ),
            Form("yelp_academic_dataset_business.json", {"item_id": "business_id", "title": "name"}),
        ),
    ),
    "goodreads": (
        Layout(
            "Goodreads",
            Form("goodreads_interactions*.json", {"item_id": "book_id", "timestamp": "date_added"}),
            Form("goodreads_books*.json", {"item_id": "book_id"}),
        ),
    ),
    "hm": (
        Layout(
            "H&M",
            Form(
                "transactions_train.csv", {"user_id": "customer_id", "item_id": "article_id", "timestamp": "t_dat"}
            ),
            Form(
                "articles.csv", {"item_id": "article_id", "title": "prod_name", "categories": "product_type_name"}
            ),
        ),
    ),
    "mind": (
        Layout(
            "MIND",
            Form(
                "behaviors.tsv",
                separator="\t",
                header=("impression_id", "user_id", "time", "history", "impressions"),
            ),
            Form(
                "news.tsv",
                separator="\t",
                header=(
                    "item_id", "categories", "subcategory", "title", "abstract", "url", "title_entities",
                    "abstract_entities",
                ),
            ),
        ),
    ),
    "amazon_m2": (
        Layout("Amazon-M2", Form("sessions_train.csv"), Form("products_train.csv", {"item_id": "id"})),
    ),
}  # fmt: skip
"""By source the layouts that it knows."""

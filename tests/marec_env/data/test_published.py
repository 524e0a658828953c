"""Every converter on hand-made rows in the published shape."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest

from marec_env.data.config import DataConfig
from marec_env.data.log import load_log
from marec_env.data.published import convert, dataset, datasets
from marec_env.errors import DataError

OBD = "user_feature_0,user_feature_1,user_feature_2,user_feature_3"
FILES: dict[str, dict[str, str]] = {
    "movielens": {
        "ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n2::1193::x::978298413\n",
        "movies.dat": "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n661::Été (1996)::A|B\n",
        "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    },
    "amazon": {
        "All_Beauty.jsonl": (
            '{"rating": 5.0, "title": "Nice", "asin": "B1", "parent_asin": "P1", '
            '"user_id": "AE", "timestamp": 1588687728923, "verified_purchase": true}\n'
            '{"overall": 2, "reviewerID": "AF", "asin": "B2", "unixReviewTime": 1514764800}\n'
            '{"broken": \n'
        ),
        "meta_All_Beauty.jsonl": (
            '{"main_category": "All Beauty", "title": "Soap", "price": "$1,299.50", '
            '"description": ["Two", "parts"], "categories": ["Bath", "All Beauty"], '
            '"parent_asin": "P1"}\n{"title": "Again", "parent_asin": "P1"}\n'
        ),
    },
    "retailrocket": {
        "events.csv": (
            "timestamp,visitorid,event,itemid,transactionid\n"
            "1433221332117,257597,view,355908,\n1433224214164,992329,transaction,248676,4000\n"
            "1433221999827,111016,addtocart,318965,\n1433221955914,483717,other,253185,\n"
        ),
        "item_properties_part1.csv": (
            "timestamp,itemid,property,value\n1435460400000,355908,categoryid,1338\n"
            "1441508400000,355908,790,n12960.000\n1442508400000,355908,790,n15360.000\n"
            "1441508400000,248676,888,1116713 960601\n"
        ),
        "item_properties_part2.csv": (
            "timestamp,itemid,property,value\n1436065200000,355908,categoryid,1114\n"
        ),
    },
    "kuairec": {
        "big_matrix.csv": (
            "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
            "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.273397\n"
            "0,9598,300000,1000,2020-07-05,20200705,1593879221.297,300.0\n"
            "1,9598,3000,1000,2020-07-05,20200705,,3.0\n"
        ),
        "kuairec_caption_category.csv": (
            "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,"
            "first_level_category_name,second_level_category_name\n"
            '3649,UNKNOWN,"A dog,\nrunning",[],8,Pets,Dogs\n9598,UNKNOWN,UNKNOWN,[],8,Pets,Cats\n'
        ),
        "user_features.csv": "user_id,user_active_degree\n0,high_active\n1,full_active\n",
        "social_network.csv": 'user_id,friend_list\n0,"[0, 5]"\n',
    },
    "kuairand": {
        "log_standard_4_08_to_4_21_pure.csv": (
            "user_id,video_id,date,hourmin,time_ms,is_click,is_like,long_view,play_time_ms\n"
            "0,11,20220408,1200,1649391180000,1,0,1,90000\n0,12,20220408,1201,1649391190000,0,0,0,5\n"
        ),
        "log_random_4_22_to_5_08_pure.csv": (
            "user_id,video_id,date,hourmin,time_ms,is_click,is_like,long_view,play_time_ms\n"
            "3,12,20220422,1200,1650600780000,1,1,0,30000\n"
        ),
        "video_features_basic_pure.csv": (
            'video_id,author_id,video_duration,tag\n11,7,120000,"12,39"\n12,8,,\n'
        ),
        "user_features_pure.csv": "user_id,user_active_degree\n0,high_active\n3,low_active\n",
    },
    "mind": {
        "behaviors.tsv": (
            "1\tU1\t11/15/2019 8:55:22 PM\tN9 N8\tN1-0 N2-1\n2\tU2\t11/13/2019 1:00:00 AM\t\tN2-0\n"
        ),
        "news.tsv": (
            'N1\tsports\tnfl\tA "title"\tAn abstract.\thttps://x\t[]\t[]\n'
            "N2\tnews\tworld\tOther\t\thttps://y\t[]\t[]\n"
        ),
    },
    "lastfm": {
        "user_artists.dat": "userID\tartistID\tweight\n2\t51\t13883\n2\t52\t117\n3\t51\t300\n",
        "artists.dat": "id\tname\turl\tpictureURL\n51\tDuran Duran\thttp\tjpg\n52\tMC\thttp\tjpg\n",
        "tags.dat": "tagID\ttagValue\n1\tmetal\n2\t80s\n",
        "user_taggedartists.dat": (
            "userID\tartistID\ttagID\tday\tmonth\tyear\n"
            "2\t51\t2\t1\t4\t2009\n3\t51\t2\t1\t4\t2009\n2\t51\t1\t1\t4\t2009\n"
        ),
        "user_friends.dat": "userID\tfriendID\n2\t3\n2\t99\n",
    },
    "filmtrust": {
        "ratings.tab": (
            "user\tmovie\tscore\nc\tc\tc\nrow=1\tcol=1\tclass\n1\t7\t2\n2\t7\t3.5\n3\t8\t.5\n"
        ),
        "trust.txt": "3 1 1\n2 99 1\n",
    },
    "complete-journey": {
        "transactions.parquet": (
            "household_id,product_id,quantity,sales_value,transaction_timestamp\n"
            "900,10,1,0.5,2017-01-01 11:53:26\n900,10,3,2.5,2017-01-01 12:10:28\n"
            "1228,11,0,1.25,2017-01-02 09:00:00\n"
        ),
        "products.parquet": (
            "product_id,manufacturer_id,department,brand,product_category,product_type,package_size\n"
            "10,2,GROCERY,National,FRZN ICE,ICE - CRUSHED,22 LB\n11,69,PASTRY,Private,,,\n"
        ),
        "demographics.parquet": (
            "household_id,age,income,household_comp\n900,65+,35-49K,2 Adults\n1,25-34,,1 Adult\n"
        ),
    },
    "open-bandit": {
        "all.csv": (
            f",timestamp,item_id,position,click,propensity_score,{OBD}\n"
            "0,2019-11-24 00:00:08.443848+00:00,14,3,0,0.0125,a,b,c,d\n"
            "1,2019-11-24 00:00:18.443848+00:00,13,1,1,0.0125,a,b,c,d\n"
            "2,2019-11-24 00:00:28.443848+00:00,14,1,0,0.0125,a,b,c,e\n"
        ),
        "item_context.csv": (
            ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n"
            "0,13,-0.499,p,q,r\n1,14,0.25,p,s,t\n"
        ),
    },
    "far-trans": {
        "transactions.csv": (
            "customerID,ISIN,transactionID,transactionType,timestamp,totalValue,units,channel\n"
            "C1,GRS1,1,Buy,2018-01-02,1000.5,10,Internet\nC1,GRS1,2,Sell,2018-03-02,900,10,Branch\n"
            "C2,GRS2,3,Buy,2018-01-03,50,1,Internet\n"
        ),
        "asset_information.csv": (
            "ISIN,assetName,assetShortName,assetCategory,assetSubCategory,sector,industry\n"
            "GRS1,ALPHA,AL,Stock,,Banks,Banks\nGRS2,,FUND B,MTF,Bond,,\n"
        ),
        "close_prices.csv": "ISIN,timestamp,closePrice\n"
        + "".join(
            f"GRS1,{2015 + week // 48}-{week % 48 // 4 + 1:02d}-{week % 4 * 7 + 1:02d},"
            f"{100 * 1.03 ** (week % 2)}\n"
            for week in range(60)
        ),
        "customer_information.csv": (
            "customerID,customerType,riskLevel,investmentCapacity,timestamp\n"
            "C1,Mass,Predicted_Income,x,2018-01-01\nC2,Premium,Not_Available,x,2018-01-01\n"
            "C9,Mass,Balanced,x,2018-01-01\n"
        ),
    },
    "steam": {
        "steam_reviews.json": (
            "{u'username': u'Su', u'product_id': u'725280', u'hours': 12.5, "
            "u'date': u'2017-12-17', u'text': u'Fun'}\n"
            "{u'username': u'Al', u'product_id': u'725280', u'date': u'2017-12-18'}\n"
        ),
        "steam_games.json": (
            "{u'id': u'725280', u'app_name': u'Bots', u'genres': [u'Action', u'Indie'], "
            "u'tags': [u'Indie', u'Co-op'], u'price': 4.99, u'developer': u'Kot'}\n"
            "{u'id': u'1', u'title': u'Free one', u'price': u'Free To Play'}\n"
        ),
    },
    "goodbooks": {
        "ratings.csv": "user_id,book_id,rating\n1,258,5\n2,4081,4\n2,258,3\n",
        "books.csv": (
            "book_id,authors,original_publication_year,title\n258,Zafon,2001.0,Shadow\n"
            "4081,Homer,-750.0,Odyssey\n"
        ),
    },
    "yelp": {
        "yelp_academic_dataset_review.json": (
            '{"user_id": "u1", "business_id": "b1", "stars": 4.0, "date": "2018-07-07 22:09:11"}\n'
            '{"user_id": "u2", "business_id": "b1", "stars": 1.0, "date": "2012-01-03 15:28:18"}\n'
        ),
        "yelp_academic_dataset_business.json": (
            '{"business_id": "b1", "name": "Pho", "city": "Reno", "state": "NV", '
            '"categories": "Food, Vietnamese"}\n{"business_id": "b2", "name": "Bar", '
            '"city": "Reno", "state": "NV", "categories": null}\n'
        ),
        "yelp_academic_dataset_user.json": (
            '{"user_id": "u1", "friends": "u2, zz"}\n{"user_id": "u2", "friends": "None"}\n'
        ),
    },
}
"""Rows as each is published, with some that must be left out."""

EXPECTED: dict[str, dict[str, list[str]]] = {
    "movielens": {
        "interactions.csv": ["1,1193,5,978300760", "1,661,3,978302109"],
        "items.csv": [
            "1193,One Flew Over the Cuckoo's Nest (1975),Drama",
            "661,Ã\x89tÃ© (1996),A|B",  # the published file is Latin-1, this one is not
        ],
        "users.csv": ["1,F,1"],
    },
    "amazon": {
        "interactions.csv": ["AE,P1,5.0,1588687728.923", "AF,B2,2,1514764800.0"],
        "items.csv": ["P1,Soap,All Beauty|Bath,Two parts,1299.50", "B2,item B2,,,"],
    },
    "retailrocket": {
        "interactions.csv": [
            "257597,355908,2,1433221332117,0,0",
            "992329,248676,5,1433224214164,0,1",
            "111016,318965,4,1433221999827,1,0",
        ],
        "items.csv": [
            "355908,item 355908,category 1114,15360.000",
            "248676,item 248676,,",
            "318965,item 318965,,",
        ],
    },
    "kuairec": {
        "interactions.csv": [
            "0,3649,1.273397,1593878903.438,0.2306,1.0",
            "0,9598,5.0,1593879221.297,5.0000,1.0",
        ],
        "items.csv": ['3649,"A dog, running",Pets|Dogs', "9598,item 9598,Pets|Cats"],
        "users.csv": ["0,high_active"],
        "friends.csv": ["0,0"],
    },
    "kuairand": {
        "interactions.csv": ["3,12,1,1650600780000,1,0.5000", "0,11,2,1649391180000,0,1.5000"],
        "impressions.csv": [
            "3,12,1650600780000,0,1",
            "0,11,1649391180000,0,1",
            "0,12,1649391190000,0,0",
        ],
        "items.csv": ["11,video 11,tag 12|tag 39,7,2.0000", "12,video 12,,8,"],
        "users.csv": ["0,high_active", "3,low_active"],
    },
    "mind": {
        "interactions.csv": ["U1,N2,1,2019-11-15T20:55:22+00:00"],
        "impressions.csv": [
            "U1,N1,2019-11-15T20:55:22+00:00,0,0",
            "U1,N2,2019-11-15T20:55:22+00:00,1,1",
            "U2,N2,2019-11-13T01:00:00+00:00,0,0",
        ],
        "items.csv": [
            'N1,"A ""title""",sports|nfl,An abstract.',
            "N2,Other,news|world,",
        ],
    },
    "lastfm": {
        "interactions.csv": ["2,51,13883,0", "2,52,117,0", "3,51,300,0"],
        "items.csv": ["51,Duran Duran,80s|metal", "52,MC,"],
        "friends.csv": ["2,3"],
    },
    "filmtrust": {
        "interactions.csv": ["1,7,2,0", "2,7,3.5,0", "3,8,.5,0"],
        "items.csv": ["7,item 7", "8,item 8"],
        "friends.csv": ["3,1"],
    },
    "complete-journey": {
        "interactions.csv": [
            "900,10,1,2017-01-01 11:53:26,1,0.5",
            "900,10,1,2017-01-01 12:10:28,1,2.5",
            "1228,11,1,2017-01-02 09:00:00,1,1.25",
        ],
        "items.csv": [
            "10,ICE - CRUSHED,GROCERY|FRZN ICE,National. 22 LB,2,0.7500",
            "11,PASTRY,PASTRY,Private,69,",
        ],
        "users.csv": ["900,65+,35-49K,2 Adults", "1228,,,"],
    },
    "open-bandit": {
        "interactions.csv": ["@,13,1,2019-11-24 00:00:18.443848+00:00"],
        "impressions.csv": [
            "@,14,2019-11-24 00:00:08.443848+00:00,2,0,0.0125",
            "@,13,2019-11-24 00:00:18.443848+00:00,0,1,0.0125",
            "@,14,2019-11-24 00:00:28.443848+00:00,0,0,0.0125",
        ],
        "items.csv": ["13,item 13,p|q|r,-0.499", "14,item 14,p|s|t,0.25"],
    },
    "far-trans": {
        "interactions.csv": ["C1,GRS1,1,2018-01-02,1,1000.5", "C2,GRS2,1,2018-01-03,1,50"],
        "items.csv": ["GRS1,ALPHA,Stock|Banks,6", "GRS2,FUND B,MTF|Bond,"],
        "users.csv": ["C1,Mass,Predicted_Income,3", "C2,Premium,Not_Available,7"],
    },
    "steam": {
        "interactions.csv": ["Su,725280,12.5,2017-12-17"],
        "items.csv": ["725280,Bots,Action|Indie|Co-op,Kot,4.99", "1,Free one,,unknown,0"],
    },
    "goodbooks": {
        "interactions.csv": ["1,258,5,2", "2,4081,4,3", "2,258,3,4"],
        "items.csv": ["258,Shadow,by Zafon,2001", "4081,Odyssey,by Homer,"],
    },
    "yelp": {
        "interactions.csv": ["u1,b1,4.0,2018-07-07 22:09:11", "u2,b1,1.0,2012-01-03 15:28:18"],
        "items.csv": ['b1,Pho,Food|Vietnamese,"Reno. NV"', 'b2,Bar,,"Reno. NV"'],
        "friends.csv": ["u1,u2"],
    },
}


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        if name.endswith(".parquet"):
            pyarrow.parquet.write_table(
                pyarrow.csv.read_csv(io.BytesIO(text.encode())), folder / name
            )
            continue
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_every_data_set_is_tested() -> None:
    assert set(FILES) == set(EXPECTED) == set(datasets())


@pytest.mark.parametrize("name", sorted(FILES))
def test_published_rows_become_a_log(name: str, tmp_path: Path) -> None:
    known, out = dataset(name), tmp_path / "out"
    report = convert(known, write(tmp_path / "in", FILES[name]), out)
    assert {path.name for path in out.iterdir()} == set(EXPECTED[name])
    for file, rows in EXPECTED[name].items():
        with (out / file).open(encoding="utf-8", newline="") as text:
            found = list(csv.reader(text))[1:]
        if name == "open-bandit" and file != "items.csv":  # who the users are is a hash
            assert len({row[0] for row in found}) == (2 if file == "impressions.csv" else 1)
            found = [["@", *row[1:]] for row in found]
        assert found == list(csv.reader(rows)), file
        assert report.kept[file] == len(rows)
    settings = {"like_threshold": known.like_threshold, "time_unit": known.time_unit}
    log = load_log(DataConfig(source=str(out), **settings))
    assert log.num_interactions == len(EXPECTED[name]["interactions.csv"])
    assert (log.impressions is not None) == ("impressions.csv" in EXPECTED[name])


def test_what_is_left_out_is_told_with_reason_and_place(tmp_path: Path) -> None:
    report = convert(
        dataset("movielens"), write(tmp_path / "in", FILES["movielens"]), tmp_path / "out"
    )
    assert list(report.lines()) == [
        "interactions.csv: 2 rows kept",
        "  1 left out: rating is no number (first ratings.dat line 3)",
        "items.csv: 2 rows kept",
        "users.csv: 1 rows kept",
        "  1 left out: no interaction (first users.dat line 2)",
    ]
    report = convert(dataset("amazon"), write(tmp_path / "a", FILES["amazon"]), tmp_path / "b")
    assert list(report.lines())[1:] == [
        "  1 left out: line cannot be read (first All_Beauty.jsonl line 3)",
        "items.csv: 2 rows kept",
        "  1 left out: described before (first meta_All_Beauty.jsonl line 2)",
        "items.csv: 1 that the source does not describe, titled by their identifier",
    ]


def test_packed_files_are_read_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, text in FILES["steam"].items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    convert(dataset("steam"), folder, tmp_path / "out")
    assert (tmp_path / "out" / "interactions.csv").read_text().endswith("12.5,2017-12-17\n")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", FILES["complete-journey"])
    (folder / "transactions.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(DataError, match=r"transactions.parquet: .* after 0 rows"):
        convert(dataset("complete-journey"), folder, tmp_path / "out")


def test_what_cannot_be_converted_leaves_nothing(tmp_path: Path) -> None:
    known, out = dataset("goodbooks"), tmp_path / "out"
    with pytest.raises(DataError, match="no such folder"):
        convert(known, tmp_path / "none", out)
    folder = write(tmp_path / "in", {"ratings.csv": "user,book_id,rating\n1,2,3\n"})
    with pytest.raises(DataError, match=r"ratings.csv: missing column user_id \(there are: user"):
        convert(known, folder, out)
    with pytest.raises(DataError, match=r"none of the files events.csv \(RetailRocket"):
        convert(dataset("retailrocket"), folder, out)
    (folder / "ratings.csv").write_text("user_id,book_id,rating\n1,2,bad\n")
    with pytest.raises(
        DataError, match=r"no interaction was kept: .*1 left out: rating is no numb"
    ):
        convert(known, folder, out)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    (folder / "ratings.csv").write_text("user_id,book_id,rating\n1,2,3\n")
    convert(known, folder, out)
    with pytest.raises(DataError, match="out is there already"):
        convert(known, folder, out)

"""What a click on a number of the drift page opens: rows of the same two policies, or the numbers a mean is of."""

import re
from html import unescape

import pytest

from tests import drift_kit
from tests.drift_kit import LATER, PLAIN, POLITE, World, capability, items, one_round, retention, samples
from tests.page_kit import client, drift_served
from workbench.policies.lineage import points_between
from workbench.views.kept import Numbers

world, web = drift_kit.world, drift_kit.web


def rows(web, policy, number, suite, **asked):
    """What is said of a number: its heading, the line below it, and how many rows turned."""
    cell = {"cell": f"{policy.digest[:16]} {number} {suite}"}
    page = web.get("/drift/rows", params={"policy": policy.digest, **cell, **asked})
    assert page.status_code == 200, page.text
    heading, line = re.search(r'<h2>(.*?)</h2>\s*<p class="quiet">(.*?)</p>', page.text).groups()
    turned = dict(re.findall(r">(worse|better|the same) (\d+)<", page.text))
    return heading, line, (turned["worse"], turned["better"], turned["the same"])


def cells(table, version):
    """What a table of what turned says of a version: b, c, p, what was lost of each quarter, and the change."""
    row = re.search(rf'<th scope="row">{version}</th>(.*?)</tr>', table)[1]
    return [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]


def links(page):
    """Addresses of cells that a page leads to."""
    return {unescape(link) for link in re.findall(r'href="(\?policy=[^"]*cell=\w[^"]*)"', page)}


# Of twenty pairs the base had 10 right, round 1 had 16 and round 2 has 14; of forty questions 20, 18 and 19.
@pytest.mark.parametrize(
    ("number", "suite", "pinned", "value", "other", "turned"),
    [
        ("from parent", f"retention/{PLAIN}", "", "-0.100 [", "round-1", ("2", "0", "18")),
        ("from parent", f"retention/{PLAIN}", "base", "+0.200 [", "tiny", ("0", "4", "16")),
        ("from base", f"retention/{PLAIN}", "round-1", "-0.100 [", "round-1", ("2", "0", "18")),
        ("tax", "choice", "", "+0.025 [", "tiny", ("1", "0", "39")),
        ("tax", "choice", "round-1", "-0.025 [", "round-1", ("0", "1", "39")),
        ("step tax", "choice", "base", "+0.025 [", "tiny", ("1", "0", "39")),
    ],
)
def test_a_comparison_and_its_rows_are_of_the_same_two_policies(
    web, world, number, suite, pinned, value, other, turned
):
    heading, line, counts = rows(web, world.second, number, suite, against=pinned)
    what = "change of accuracy of round-2 on plain" if suite != "choice" else "tax of round-2 on choice"
    assert heading == what
    assert line.startswith(value)
    assert line.endswith(f"Compared with {other}, number and rows alike.")
    assert counts == turned


def test_a_number_of_one_policy_stays_whatever_its_rows_are_compared_with(web, world):
    for pinned, other in (("", "round-1"), ("base", "tiny")):
        _, line, _ = rows(web, world.second, "accuracy", f"retention/{PLAIN}", against=pinned)
        assert line.startswith("0.700 [")
        assert line.endswith(f"Compared with {other}, row by row.")


def test_the_baseline_itself_has_nothing_to_be_compared_with(web, world):
    _, line, counts = rows(web, world.second, "tax", "choice", against="round-2")
    assert line == "This is what others are compared with. Compared with round-2, number and rows alike."
    assert counts == ("0", "0", "40")
    # Without a pinned one the base is that of every tax, and its cell opens as the others do.
    base = world.base.digest[:16]
    assert any(f"cell={base}+tax+choice" in link for link in links(web.get("/drift").text))


def test_a_pinned_baseline_that_was_not_measured_leaves_no_number(web, world):
    other = world.child(world.plan(world.second, LATER), 3.0)
    for number, suite in (("from parent", f"retention/{PLAIN}"), ("refused safe from parent", "refusal")):
        cell = f"{world.second.digest[:16]} {number} {suite}"
        page = web.get("/drift/rows", params={"cell": cell, "against": other.digest})
        assert page.status_code == 200
        assert "Compared with round-3, number and rows alike" in page.text
        assert re.search(r'<p class="quiet">not (measured|enough data)', page.text), page.text[:400]


# Round 1 had the first sixteen of twenty pairs right, all by one nat, and of equal margins the first count as lower: its
# lowest quarter is 16 to 19 and 0, its highest 11 to 15, of which 14 and 15 turned. The base had the first ten right: its
# lowest quarter is 10 to 14, of which round 2 has all but the last.
@pytest.mark.parametrize(
    ("number", "pinned", "called", "value", "turned"),
    [
        ("margin quartile 4", "", "change of margin in the highest quarter", "-0.800 [", ("2", "0", "3")),
        ("margin quartile 1", "", "change of margin in the lowest quarter", "+0.000 [", ("0", "0", "5")),
        ("lost quartile 4", "", "share lost in the highest quarter", "+0.400 [", ("2", "0", "3")),
        ("margin quartile 1", "base", "change of margin in the lowest quarter", "+1.600 [", ("0", "4", "1")),
    ],
)
def test_rows_behind_a_quarter_are_those_of_the_quarter(web, world, number, pinned, called, value, turned):
    suite = f"retention/{PLAIN}"
    heading, line, counts = rows(web, world.second, number, suite, against=pinned)
    assert heading == f"{called} of round-2 on plain"
    assert line.startswith(value)
    assert line.endswith("number and rows alike; the quarter is that of the margins there.")
    assert counts == turned
    cell = {"cell": f"{world.second.digest[:16]} {number} {suite}", "against": pinned}
    assert len(web.get("/drift/rows.jsonl", params=cell).text.splitlines()) == 5


def test_a_quarter_of_pairs_that_are_not_the_same_has_no_rows(web, world):
    world.record(world.second, retention(LATER, 12))
    page = web.get(
        "/drift/rows", params={"cell": f"{world.second.digest[:16]} margin quartile 1 retention/{LATER}"}
    ).text
    assert "No rows." in page
    # Nor is there a fifth quarter: a number nobody computed has all rows and no value.
    other = web.get("/drift/rows", params={"cell": f"{world.second.digest[:16]} margin quartile 5 retention/{PLAIN}"})
    assert (other.status_code, ">all 20<" in other.text) == (200, True)


@pytest.mark.parametrize(
    ("number", "suite", "pinned", "said"),
    [
        ("accuracy", f"retention/{PLAIN}", "", "b = 2 worse, c = 0 better, n = 20; McNemar&#39;s exact test: p = 0.500"),
        ("accuracy", f"retention/{PLAIN}", "base", "b = 0 worse, c = 4 better, n = 20; McNemar&#39;s exact test: p = 0.125"),
        ("from parent", f"retention/{POLITE}", "", "b = 0 worse, c = 9 better, n = 20; McNemar&#39;s exact test: p = 0.004"),
        ("lost quartile 4", f"retention/{PLAIN}", "", "b = 2 worse, c = 0 better, n = 5; McNemar&#39;s exact test: p = 0.500"),
        ("tax", "choice", "", "b = 1 worse, c = 0 better, n = 40; McNemar&#39;s exact test: p = 1.000"),
        ("tax", "text/f00df00df00d", "", ""),  # bits have no sides
        ("tax", "choice", "round-2", ""),  # the baseline itself
    ],
)  # fmt: skip
def test_what_turned_is_tested_where_it_has_two_sides(web, world, number, suite, pinned, said):
    cell = f"{world.second.digest[:16]} {number} {suite}"
    page = web.get("/drift/rows", params={"cell": cell, "against": pinned}).text
    assert said in page
    assert ("McNemar" in page) == bool(said)


def test_causes_say_that_they_are_of_one_round_where_rows_are_compared_with_another_policy(web, world):
    cell = {"cell": f"{world.second.digest[:16]} accuracy retention/{PLAIN}", "within": "", "policy": "round-2"}
    assert "<summary>Why it fell</summary>" in web.get("/drift/rows", params=cell).text
    page = web.get("/drift/rows", params=cell | {"against": "base"}).text
    assert "<summary>Why it fell from round-1, in its last round</summary>" in page
    link = unescape(re.search(r'<a href="(/drift\?[^"]*)">The comparison with round-1</a>', page)[1])
    whole = web.get(link.removesuffix("#rows")).text
    assert "Compared with round-1, row by row." in whole
    assert "<summary>Why it fell</summary>" in whole
    assert f'<option value="{world.first.digest[:16]}" selected>' in whole  # it is the baseline of that page


def test_the_table_of_a_pinned_baseline_opens_the_numbers_it_shows(web, world):
    table = web.get("/drift/part/against", params={"against": "base"}).text
    found = dict(re.findall(r'<th scope="row">(\w+)</th>.*?<td><a href="([^"]*)">', table))
    assert set(found) == {"plain", "polite"}
    value = re.search(r">(\+0\.200 \[[^<]*)<", table)[1]
    assert value in web.get("/drift/rows" + unescape(found["plain"]).split("#")[0]).text
    assert cells(table, "plain")[:3] == ["0", "4", "0.125"]


def test_everything_that_can_be_clicked_opens(web, world):
    seen, left = set(), links(web.get("/drift").text)
    while left:
        link = left.pop()
        seen.add(link)
        page = web.get("/drift/rows" + link.split("#")[0])
        assert page.status_code == 200, link
        assert "No rows." not in page.text, link
        left |= {each for each in links(page.text) if "turn=" not in each} - seen
    named = {re.search(r"cell=\w+\+(.*?)[+#&]", link + "#")[1].split("%2F")[0] for link in seen}
    assert {
        "accuracy",
        "from",
        "tax",
        "kl",
        "kl_back",
        "lost",
        "margin",
        "length",
        "distinct-2",
        "refused",
        "figure",
        "overconfident",
    } <= named


def test_a_mean_opens_the_numbers_it_is_made_of(web, world):
    link = next(each for each in links(web.get("/drift").text) if f"{world.second.digest[:16]}+figure+pareto" in each)
    page = web.get("/drift/rows" + link.split("#")[0]).text
    assert "Gain against tax, policy by policy: round-2" in page
    told = dict(re.findall(r'<th scope="row">([^<]*)</th><td><a href="[^"]*">([^ ]*) ', page))
    # Of pairs 14 and 15 of 20; of questions 20 right before and 19 now; of bits 800 before and 810 now.
    assert told == {"accuracy on plain": "0.700", "accuracy on polite": "0.750", "tax on choice": "+0.025",
                    "tax on text": "+0.013"}  # fmt: skip
    for cell in (f"{world.second.digest[:16]} figure nothing", f"{world.base.digest[:16]} figure pareto"):
        assert web.get("/drift/rows", params={"cell": cell}).status_code == 404
    assert web.get(f"/drift/rows.csv?{link[1:].split('#')[0]}").status_code == 404


def test_what_lies_between_two_policies_opens_its_rows(web, world):
    mixed = points_between(world.first.digest, world.second.digest)[0.5]
    world.ws.ledger.record(
        mixed, world.condition, [*retention(PLAIN, 15), *retention(POLITE, 12), *capability(18, 815)]
    )
    Numbers(world.ws.engine, world.condition).keep([world.base.digest, mixed])  # as whoever measures it does
    link = next(each for each in links(web.get("/drift").text) if f"{mixed[:16]}+figure+between" in each)
    page = web.get("/drift/rows" + link.split("#")[0]).text
    assert "50% of the way to round-2" in page
    cell = {"cell": f"{mixed[:16]} accuracy retention/{PLAIN}"}
    opened = web.get("/drift/rows", params=cell).text
    assert "0.750 [" in opened  # 15 of 20
    assert "worse 1<" in opened  # than round 1, which has 16
    assert "Ask people again" not in opened  # nobody can choose it


def test_rows_of_kl_show_the_answers_it_is_of(web, world):
    cell = f"{world.second.digest[:16]} kl/{world.first.digest} samples/{PLAIN}"
    page = web.get("/drift/rows", params={"cell": cell}).text
    assert "<h2>KL to round-1 of round-2 on plain</h2>" in page
    assert ">a b c</pre>" in page  # what round 2 says
    assert ">one two</pre>" in page  # and round 1 before it
    assert "prompt 0 of a</pre>" in page
    world.record(world.second, items(f"samples/{PLAIN}", "kl/" + "e" * 64, [1.0]))
    assert web.get("/drift/rows", params={"cell": cell, "against": "base"}).status_code == 200


def gate_links(web, **asked):
    return links(web.get("/drift/part/gate", params=asked).text)


def test_lines_of_the_gate_open_rows_where_it_judged_what_is_shown(web, world):
    found = {re.search(r"cell=\w+\+(.*?)#", link)[1] for link in gate_links(web)}
    assert found == {
        f"from+parent+retention%2F{POLITE}",
        f"from+parent+retention%2F{PLAIN}",
        "tax+choice",
        "tax+text%2Ff00df00df00d",
        f"kl%2F{world.base.digest}+samples%2F{POLITE}",
        f"kl%2F{world.first.digest}+samples%2F{POLITE}",
    }
    assert gate_links(web, within="language=de") == set()  # its numbers are of all items


def test_lines_of_a_gate_that_judged_another_artifact_open_nothing(tmp_path):
    world = World(tmp_path)
    one_round(world, judged="q8_0")
    with drift_served(world.ws) as url, client(url) as web:
        assert "Gate on the policy merged and rounded to q8_0" in web.get("/drift/part/gate").text
        assert gate_links(web) == set()


def test_a_line_of_the_gate_without_a_value_is_no_link(tmp_path):
    world = World(tmp_path)
    child = one_round(world)  # the gate found no KL, which was measured afterwards
    world.record(child, samples(PLAIN, tokens=[5] * 6, texts=["a b"] * 6, kl=[(world.base.digest, 0.1)]))
    with drift_served(world.ws) as url, client(url) as web:
        page = web.get("/drift/part/gate").text
    assert not re.search(r"<a [^>]*></a>", page)
    assert {re.search(r"cell=\w+\+(\w+)", link)[1] for link in links(page)} == {"from"}

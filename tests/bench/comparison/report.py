#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Turns the results of a comparison into tables, goals, plots and a page.

What counts is the median over the rounds and how far the rounds lie apart. Contenders take turns within a round, so a
ratio is taken within a round and only then its median: what disturbs the machine for long disturbs both sides. A value
may be in words, where there is no number: "never". As a program it draws all of it again from data that were kept.
"""

import argparse
import collections
import fnmatch
import io
import itertools
import json
import math
import pathlib
import re
import shutil
import statistics
import sys
import textwrap

import page
import plot

OURS = 'fcgi-pool'
NAME = '[A-Za-z0-9_-]+'  # of what becomes a file name or an anchor
RATIO = f'"ratio" is the value by the one of {OURS} in the same round'

PLANNED = ['reload', 'reload-long', 'reload-broken', 'manager-restart', 'manager-kill', 'package-reinstall', 'recycle',
           'nginx']

# title     in tables
# where     a scenario, or several
# figure    of theirs
# ours      whose value it is
# sum       over all scenarios and rounds, instead of the median of the rounds; of all series of ours
# theirs    patterns of those whose least value the one of ours is divided by, within a round
# but       patterns of those who do not count among theirs
# at_most, at_least
# promise   a run in which it is missed has failed
GOALS = [
    {'title': 'requests that fcgi-pool lost in planned events', 'where': PLANNED, 'figure': 'failed',
     'ours': 'fcgi-pool', 'sum': True, 'at_most': 0, 'promise': True},
    {'title': 'requests that fcgi-pool lost in planned events, with php-cgi', 'where': PLANNED, 'figure': 'failed',
     'ours': 'fcgi-pool-php', 'sum': True, 'at_most': 0, 'promise': True},
    {'title': 'p99.9 during reload / undisturbed', 'where': 'reload', 'figure': 'p999_ratio', 'ours': 'fcgi-pool',
     'at_most': 1.2},
    {'title': 'respawn latency, fcgi-pool / multiwatch', 'where': 'respawn', 'figure': 'p50', 'ours': 'fcgi-pool',
     'theirs': ['multiwatch'], 'at_most': 1.0},
    {'title': 'private memory, fcgi-pool / the least of the other managers', 'where': 'memory', 'figure': 'private',
     'ours': 'fcgi-pool@4', 'theirs': ['*@4'], 'but': ['fcgi-pool*', 'systemd*'], 'at_most': 1.0},
    {'title': 'wakeups of an idle pool', 'where': 'wakeups', 'figure': 'wakeups', 'ours': 'fcgi-pool', 'at_most': 0},
    {'title': 'throughput without sandbox, fcgi-pool / bare inherited socket', 'where': 'throughput', 'figure': 'rate',
     'ours': 'fcgi-pool@no sandbox', 'theirs': ['bare'], 'at_least': 0.99},
    {'title': 'start of 1,000 workers, fcgi-pool / bare fork and exec', 'where': 'start', 'figure': 'start',
     'ours': 'fcgi-pool@1000', 'theirs': ['bare@1000'], 'at_most': 1.2},
]


# --- what is read ---

def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check(condition, text):
    if not condition:
        raise ValueError(text)


def check_keys(things, what, pattern='.+'):
    keys = [thing['key'] for thing in things]
    for key in keys:
        check(re.fullmatch(pattern, key), f'{what} {key!r}: not a key')
    check(len(set(keys)) == len(keys), f'{what}: a key twice')
    return set(keys)


def validate(results):
    """ValueError, with what is wrong, unless results can be reported."""
    try:
        check(isinstance(results['machine'], dict), 'machine: not an object')
        check_keys(results['scenarios'], 'scenario', NAME)
        for scenario in results['scenarios']:
            validate_scenario(scenario)
    except (KeyError, TypeError) as error:
        raise ValueError(f'not results of a comparison: {error!r}') from error


def validate_scenario(scenario):
    where = scenario['key']
    figures = check_keys(scenario['figures'], f'{where}: figure', NAME)
    contenders = check_keys(scenario['contenders'], f'{where}: contender')
    seen = set()
    for sample in scenario['samples']:
        who = sample['contender'], sample['round']
        what = f'{where}: {who[0]}, round {who[1]}'
        check(who[0] in contenders and who not in seen, f'{what}: unknown, or twice')
        seen.add(who)
        for key, value in (sample.get('figures') or {}).items():
            check(key in figures, f'{what}: unknown figure {key}')
            check(value is None or isinstance(value, str) or is_number(value) and math.isfinite(value),
                  f'{what}: {key} is {value!r}')


def load(path):
    results = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    validate(results)
    return results


# --- summaries ---

def base(key):
    """Who a series of a contender is of: fcgi-pool@32 is of fcgi-pool."""
    return key.partition('@')[0]


def series(key):
    return key.partition('@')[2]


def is_ours(key):
    return base(key) == OURS or base(key).startswith(f'{OURS}-')


def spread(values):
    return {'median': statistics.median(values), 'min': min(values), 'max': max(values), 'n': len(values)}


def number(value):
    return (f'{value:.0f}' if abs(value) >= 1000 or value == int(value) else
            f'{value:.3g}' if abs(value) < 100 else f'{value:.4g}')


def ratio(value):
    return f'{value:.2g}' if abs(value) < 0.1 else f'{value:.2f}' if abs(value) < 10 else number(value)


def range_text(values, as_text):
    low, high = as_text(values['min']), as_text(values['max'])
    return f'({low} to {high})' if low != high else ''


def value_of(sample, figure):
    return None if sample.get('error') else (sample.get('figures') or {}).get(figure)


def listed(scenario, contender, figure):
    """{round: value} of what was measured, or is known in words."""
    return {sample['round']: value_of(sample, figure) for sample in scenario['samples']
            if sample['contender'] == contender and value_of(sample, figure) is not None}


class Summary:
    """What one contender has in one figure.

    numbers     {round: value}
    words       {what was there instead of a number: how often}
    spread      median, min, max and n of the numbers, or None
    value       the one that stands for all: the median, or the total; None when there is no number
    ratios      spread of the ratios to ours, or None
    is_best     nobody has a better one
    """

    def __init__(self, figure, values, ours):
        self.figure, self.is_best = figure, False
        self.numbers = {i: value for i, value in values.items() if is_number(value)}
        self.words = dict(collections.Counter(value for value in values.values() if isinstance(value, str)))
        self.spread = spread(self.numbers.values()) if self.numbers else None
        ratios = [value / ours[i] for i, value in self.numbers.items() if is_number(ours.get(i)) and ours[i] > 0]
        self.ratios = spread(ratios) if ratios else None
        self.value = None
        if self.numbers:
            self.value = sum(self.numbers.values()) if figure.get('total') else self.spread['median']

    @property
    def rank(self):
        """What the best is found by: those who were not measured as often have not lost less."""
        return self.value / len(self.numbers) if self.figure.get('total') else self.value

    def value_text(self):
        return '' if self.value is None else number(self.value)

    def range_text(self):
        return range_text(self.spread, number) if self.numbers and not self.figure.get('total') else ''

    def words_text(self):
        n = len(self.numbers) + sum(self.words.values())
        return ', '.join(word if times == n else f'{word} in {times} of {n}' for word, times in self.words.items())

    def short_text(self):
        return ', '.join(filter(None, [self.value_text(), self.words_text()]))

    def ratio_text(self):
        return ratio(self.ratios['median']) if self.ratios else ''

    def ratio_range_text(self):
        return range_text(self.ratios, ratio) if self.ratios else ''


class Row:
    """A contender in a scenario.

    group           what it is compared within: a series that others have, too, or '' with all that nobody shares
    is_reference    others are a ratio to it
    n               rounds with a result
    summaries       {key of a figure: Summary}
    errors          [(round, text)]
    """

    def __init__(self, scenario, contender, group, reference):
        self.group = group
        self.key, self.title, self.verb = contender['key'], contender['title'], contender.get('verb')
        self.series, self.is_ours, self.is_reference = series(self.key), is_ours(self.key), self.key == reference
        samples = [sample for sample in scenario['samples'] if sample['contender'] == self.key]
        self.errors = [(sample['round'], str(sample['error'])) for sample in samples if sample.get('error')]
        self.n = len(samples) - len(self.errors)
        self.summaries = {figure['key']: Summary(figure, listed(scenario, self.key, figure['key']),
                                                 listed(scenario, reference, figure['key']) if reference else {})
                          for figure in scenario['figures']}

    @property
    def is_measured(self):
        return self.n > 0 or self.errors


class Table:
    """A scenario, with rows in the order of groups and, within one, of contenders."""

    def __init__(self, scenario):
        self.key, self.title = scenario['key'], scenario['title']
        self.question, self.method = scenario.get('question') or '', scenario.get('method') or ''
        self.figures = scenario['figures']
        groups = find_groups([contender['key'] for contender in scenario['contenders']])
        rows = [Row(scenario, contender, groups[contender['key']], find_reference(groups, contender['key']))
                for contender in scenario['contenders']]
        order = list(dict.fromkeys(groups.values()))
        self.rows = sorted((row for row in rows if row.is_measured), key=lambda row: order.index(row.group))
        for figure in self.figures:
            for _, group in itertools.groupby(self.rows, lambda row: row.group):
                mark_best(figure, list(group))

    def column(self, figure):
        return [row.summaries[figure['key']] for row in self.rows]

    def has_ratios(self, figure):
        return bool(figure.get('best')) and any(
            row.summaries[figure['key']].ratios for row in self.rows if not row.is_reference)

    @property
    def n_rounds(self):
        return max((row.n + len(row.errors) for row in self.rows), default=0)

    def errors(self):
        """One line for each kind of error of each contender."""
        lines = []
        for row in self.rows:
            kinds = collections.defaultdict(list)
            for i, text in row.errors:
                kinds[' '.join(text.split())].append(str(i + 1))
            lines += [f'{row.title}, round {", ".join(rounds)}: {text}' for text, rounds in kinds.items()]
        return lines


def find_groups(keys):
    """{key: group}, see Row."""
    sizes = collections.Counter(map(series, keys))
    return {key: series(key) if sizes[series(key)] > 1 else '' for key in keys}


def find_reference(groups, key):
    """The contender that another one is a ratio to; None when there is none."""
    own = [each for each, group in groups.items() if is_ours(each) and series(each) == series(key)]
    exact = [each for each in own if base(each) == OURS]
    plain = [OURS] if groups[key] == groups.get(OURS) else []
    return next(iter(exact + plain + own), None)


def mark_best(figure, rows):
    """Who is without a number at times has not won. Alone there is nothing to win."""
    pairs = [(row, row.summaries[figure['key']]) for row in rows]
    if figure.get('best') and len({base(row.key) for row, summary in pairs if summary.numbers or summary.words}) > 1:
        able = [summary for _, summary in pairs if summary.numbers and not summary.words]
        choose = min if figure['best'] == 'least' else max
        best = choose((summary.rank for summary in able), default=None)
        for summary in able:
            # What looks the same is the same.
            summary.is_best = number(summary.rank) == number(best)


def summarize(results):
    return [Table(scenario) for scenario in results['scenarios']]


# --- goals ---

def goals(results):
    """What the comparison shall show, and whether it does: a list of {title, value, min, max, n, goal, met, where,
    note, promise}; value is None when it is in words, which are in the note then."""
    scenarios = {scenario['key']: scenario for scenario in results['scenarios']}
    found = [sum_goal(goal, scenarios) if goal.get('sum') else median_goal(goal, scenarios) for goal in GOALS]
    return [each for each in found if each]


def outcome(goal, where, values, note, value=None):
    """values: numbers and words; value: what stands for them when it is not the median."""
    words = [each for each in values if isinstance(each, str)]
    numbers = [each for each in values if is_number(each)]
    if not values:
        return None
    if value is None and numbers and not words:
        value = statistics.median(numbers)
    limit = goal.get('at_most', goal.get('at_least'))
    met = value is not None and not words and (value <= limit if 'at_most' in goal else value >= limit)
    return {'title': goal['title'], 'value': value, 'min': min(numbers, default=None),
            'max': max(numbers, default=None), 'n': len(values), 'met': met, 'where': where,
            'promise': goal.get('promise', False),
            'goal': f'at {"most" if "at_most" in goal else "least"} {number(limit)}',
            'note': '; '.join(filter(None, [', '.join(dict.fromkeys(words)), note]))}


def median_goal(goal, scenarios):
    scenario = scenarios.get(goal['where'])
    if not scenario:
        return None
    ours = listed(scenario, goal['ours'], goal['figure'])
    if 'theirs' not in goal:
        return outcome(goal, scenario['key'], list(ours.values()), '')
    keys = [contender['key'] for contender in scenario['contenders']]
    theirs = {key: listed(scenario, key, goal['figure']) for key in keys
              if matches(key, goal['theirs']) and not matches(key, goal.get('but', []))}
    values, least = [], collections.Counter()
    for i, value in ours.items():
        against = [(each[i], key) for key, each in theirs.items() if is_number(each.get(i)) and each[i] > 0]
        if against:
            values.append(value / min(against)[0] if is_number(value) else value)
            least[min(against)[1]] += 1
    several = len(theirs) > 1 and least
    note = f'the least: {title_of(scenarios, least.most_common(1)[0][0])}' if several else ''
    return outcome(goal, scenario['key'], values, note)


def title_of(scenarios, key):
    return next((contender['title'] for scenario in scenarios.values() for contender in scenario['contenders']
                 if contender['key'] == key), key)


def matches(key, patterns):
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def sum_goal(goal, scenarios):
    samples = [(key, sample) for key in goal['where'] if key in scenarios for sample in scenarios[key]['samples']]
    ours = [(key, sample) for key, sample in samples if base(sample['contender']) == goal['ours']]
    values = [(key, sample['round'], value) for key, sample in ours
              if (value := value_of(sample, goal['figure'])) is not None]
    if not values:
        return None
    rounds, peers = collections.Counter(), collections.Counter()
    for _, i, value in values:
        rounds[i] += value if is_number(value) else 0
    for _, sample in samples:
        value = value_of(sample, goal['figure'])
        if is_number(value) and not is_ours(sample['contender']):
            peers[base(sample['contender'])] += value
    n_errors = sum(bool(sample.get('error')) for _, sample in ours)
    notes = [f'{n_errors} not measured'] if n_errors else []
    notes += [f'the worst peer: {number(lost)}, {title_of(scenarios, key)}' for key, lost in peers.most_common(1)]
    words = [value for *_, value in values if isinstance(value, str)]
    result = outcome(goal, ', '.join(dict.fromkeys(key for key, *_ in values)), [*rounds.values(), *words],
                     '; '.join(notes), sum(rounds.values()))
    # No promise is kept where nobody could look.
    return {**result, 'n': len(values), 'met': result['met'] and not n_errors}


def goal_value_text(goal):
    return f'{goal["value"]:.4g}' if goal['value'] is not None else '-'


def goal_range_text(goal):
    return f'{goal["min"]:.4g} to {goal["max"]:.4g}' if goal['min'] != goal['max'] else ''


# --- as text ---

def describe_machine(machine):
    names = [('systemd', 'systemd {}'), ('kernel', 'kernel {}'), ('cpu', '{}'), ('cpus', '{} CPUs'),
             ('seconds', '{:.0f} s')]
    said = [form.format(machine[name]) for name, form in names if machine.get(name) is not None]
    quick = '; a quick run, to see that it works: its figures mean little' if machine.get('quick') else ''
    return ', '.join(said) + quick


def cell_text(text):
    """For a cell of a Markdown table."""
    return re.sub(r'([|<])', r'\\\1', ' '.join(str(text).split()))


def format_table(header, rows, left=(0,)):
    """Lines of a Markdown table that is aligned for a terminal, too; left: columns that are text."""
    cells = [[cell_text(cell) for cell in row] for row in [header, *rows]]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]

    def line(row):
        return '| ' + ' | '.join(cell.ljust(width) if i in left else cell.rjust(width)
                                 for i, (cell, width) in enumerate(zip(row, widths))) + ' |'

    rule = ['-' * width if i in left else '-' * (width - 1) + ':' for i, width in enumerate(widths)]
    return [line(cells[0]), line(rule), *map(line, cells[1:])]


def figure_title(figure):
    return f'{figure["title"]} ({figure["unit"]})' if figure.get('unit') else figure['title']


def summary_cell(summary):
    value = summary.value_text()
    number_part = ' '.join(filter(None, [f'**{value}**' if summary.is_best else value, summary.range_text()]))
    return ', '.join(filter(None, [number_part, summary.words_text()])) or '-'


def scenario_lines(table):
    header, rows = ['contender'], [[row.title] for row in table.rows]
    for figure in table.figures:
        header.append(figure_title(figure) + (', total' if figure.get('total') else ''))
        for cells, summary in zip(rows, table.column(figure)):
            cells.append(summary_cell(summary))
        if table.has_ratios(figure):
            header.append('ratio')
            for cells, summary in zip(rows, table.column(figure)):
                cells.append(f'{summary.ratio_text()} {summary.ratio_range_text()}'.strip() or '-')
    header.append('n')
    for cells, row in zip(rows, table.rows):
        cells.append(row.n)
    lines = format_table(header, rows)
    if table.errors():
        lines += ['', 'Not measured:', '', *(f'- {cell_text(line)}' for line in table.errors())]
    return lines


def goal_lines(results):
    rows = [[goal['title'], goal_value_text(goal), goal_range_text(goal), goal['n'], goal['goal'],
             'met' if goal['met'] else '**missed**', goal['note'], goal['where']] for goal in goals(results)]
    if not rows:
        return [page.NO_GOALS]
    return format_table(['goal', 'value', 'rounds', 'n', 'wanted', '', 'note', 'where'], rows, left=(0, 4, 5, 6, 7))


def wrap(text):
    return textwrap.wrap(text, 119, break_long_words=False, break_on_hyphens=False)


def report_lines(results, methods):
    lines = wrap(describe_machine(results['machine']))
    lines += ['', *wrap(f'Median (min to max) of the rounds, or the total of them; n is how many there were; {RATIO}; '
                        '**bold** is the best.')]
    for table in summarize(results):
        lines += ['', f'## {table.title}', '', *wrap(table.question), '', *scenario_lines(table)]
        if methods and table.method:
            lines += ['', *wrap(table.method)]
    return [*lines, '', '## Goals', '', *goal_lines(results)]


def print_tables(results, file=None):
    """For a terminal; it is Markdown as well."""
    print('\n'.join(report_lines(results, methods=False)), file=file or sys.stdout)


def write_report(results, directory):
    """index.html, report.md and plots. What the page refers to besides, results.json, is the caller's to put there."""
    validate(results)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tables = summarize(results)
    plots = plot.Plots(directory, tables)
    text = io.StringIO()
    said = [{**goal, 'value': goal_value_text(goal), 'range': goal_range_text(goal)} for goal in goals(results)]
    machine = results['machine']
    page.write_page(text, describe_machine(machine), machine.get('versions') or {}, tables, said, plots)
    (directory / 'index.html').write_text(text.getvalue(), encoding='utf-8')
    head = [plot.LICENSE, f'# {page.TITLE}', '']
    (directory / 'report.md').write_text('\n'.join([*head, *report_lines(results, methods=True)]) + '\n',
                                           encoding='utf-8')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', type=pathlib.Path, help='results.json of a comparison')
    parser.add_argument('--output', metavar='DIR', type=pathlib.Path,
                        help='where to write index.html, report.md and plots; default: none, only print tables')
    options = parser.parse_args()
    try:
        results = load(options.results)
    except (OSError, ValueError) as error:
        sys.exit(f'report: {options.results}: {error}')
    if options.output:
        write_report(results, options.output)
        kept = options.output / 'results.json'
        if not kept.exists() or not kept.samefile(options.results):
            shutil.copyfile(options.results, kept)
    print_tables(results)


if __name__ == '__main__':
    main()

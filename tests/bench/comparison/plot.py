# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Draws the tables of a comparison by gnuplot, as SVG with a ground of its own, to be embedded in any page.

Titles are anybody's: they enter gnuplot's language in single quotes only, where nothing but the quote is special, and
its terminal without markup. What there is room for is reckoned by a wide font, since the reader's is not known.
"""

import html
import itertools
import math

import shutil
import subprocess

WIDTH = 760
FONT = 12
ROW, BAR = 24, 0.66  # height of a row, and how much of it a bar takes
LINE = 14  # of text
GROUP_GAP = 0.6  # rows between groups
LABEL_MAX = 240
VALUE_GAP = 7  # between a bar and its value
LOG_FROM = 50  # as soon as one bar is that many times as long as another one

INK, MUTED, GRID = '#1f2328', '#59636e', '#d8dee4'
OURS, OTHERS = '#1f6feb', '#b4bcc6'

LICENSE = '<!-- SPDX-License-Identifier: LGPL-2.1-or-later; SPDX-FileCopyrightText: fcgi-pool contributors -->\n'

# Planned events, in which nothing needs to be lost: scenario, and its column.
EVENTS = [('reload', 'reload'), ('reload-broken', 'reload to a broken version'),
          ('manager-restart', 'restart of manager'), ('manager-kill', 'SIGKILL of manager'),
          ('package-reinstall', 'package reinstalled'), ('recycle', 'worker recycled')]

# How bad it is: up to so many lost requests, colour of the cell and of the text in it.
HEAT = [(0, '#2da44e', '#ffffff'), (1, '#fff1c2', INK), (10, '#ffd28a', INK), (100, '#f79b61', INK),
        (1000, '#dd5344', '#ffffff'), (math.inf, '#a11b2b', '#ffffff')]
EMPTY = '#eef1f4'


# --- text ---

def text_width(text, size=FONT):
    """Pixels it takes at most."""
    wide = {**dict.fromkeys("iljI.,:;'|!()[] ", 0.42), **dict.fromkeys('mwMW@%', 1.0)}
    return size * sum(wide.get(char, 1.0 if ord(char) > 0x2000 else 0.76 if char.isupper() else 0.66) for char in text)


def clean(text):
    return ' '.join(''.join(char if char.isprintable() else ' ' for char in str(text)).split())


def shorten(text, width, size=FONT):
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + '…', size) > width:
        text = text[:-1]
    return text.rstrip() + '…'


def wrap(text, width, n_max, size=FONT):
    """At most n_max lines, each of which fits."""
    lines = ['']
    for word in clean(text).split():
        longer = f'{lines[-1]} {word}'.strip()
        if not lines[-1] or text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > n_max:
        lines[n_max - 1:] = [' '.join(lines[n_max - 1:])]
    return [shorten(line, width, size) for line in lines]


def quote(text):
    return "'" + clean(text).replace("'", "''") + "'"


def file_name(*keys):
    return f'{".".join(keys)}.svg'


class Script:
    """Text for gnuplot. Positions are in its own notation; across may be in pixels of the picture, as 'screen'."""

    def __init__(self, height):
        self.height = height
        self.lines = [
            f"set terminal svg size {WIDTH},{height:.0f} noenhanced font 'sans-serif,{FONT}' background '#ffffff'",
            'set encoding utf8', 'unset key', 'unset ytics', 'unset xtics', 'unset border']

    def add(self, *lines):
        self.lines += lines

    def margins(self, left, right, top, bottom):
        self.add(f'set lmargin at screen {left / WIDTH:.5f}', f'set rmargin at screen {1 - right / WIDTH:.5f}',
                 f'set tmargin at screen {1 - top / self.height:.5f}',
                 f'set bmargin at screen {bottom / self.height:.5f}')

    def label(self, text, where, align='left', color=INK, size=FONT, bold=False, shift=0):
        font = f'sans-serif{":Bold" if bold else ""},{size}'
        offset = f'offset character {shift / (FONT * 0.6):.3f},0 ' if shift else ''
        self.add(f"set label {quote(text)} at {where} {align} {offset}front textcolor rgb '{color}' font '{font}'")

    def pixel(self, x, y):
        return f'screen {x / WIDTH:.5f}, screen {1 - y / self.height:.5f}'

    def heading(self, title, details):
        self.label(shorten(clean(title), WIDTH - 24, FONT + 2), self.pixel(12, 18), size=FONT + 2, bold=True)
        self.label(shorten(clean(details), WIDTH - 24), self.pixel(12, 37), color=MUTED)

    def draw(self, path, title):
        """What went wrong, or None."""
        try:
            done = subprocess.run(['gnuplot', '-d', '-'], input='\n'.join(self.lines) + '\n', capture_output=True,
                                  encoding='utf-8', timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            return f'{path.name}: {error}'
        head, found, rest = done.stdout.partition('<svg')
        if done.returncode != 0 or not found or '</svg>' not in rest:
            return f'{path.name}: gnuplot failed: {clean(done.stderr)[-300:]}'
        svg = head + LICENSE + found + rest.replace('<title>Gnuplot<', f'<title>{html.escape(title)}<', 1)
        # It takes the weight for a part of the name.
        path.write_text(svg.replace('font-family="sans-serif:Bold"', 'font-family="sans-serif" font-weight="bold"'),
                        encoding='utf-8')
        return None


# --- bars ---

class Bar:
    def __init__(self, row, summary):
        self.title, self.group = clean(row.title), row.group
        self.is_ours, self.is_reference = row.is_ours, row.is_reference
        self.value = summary.value
        self.low = self.high = self.value
        if summary.value is not None and not summary.figure.get('total'):
            self.low, self.high = summary.spread['min'], summary.spread['max']
        self.text = clean(summary.short_text())
        self.all_numbers = summary.value is not None and not summary.words
        self.y = 0

    def order(self, best):
        """Ours first; then from best to worst, and those that have no number last."""
        badness = 0 if self.value is None or not best else -self.value if best == 'most' else self.value
        return not self.is_ours, not self.is_reference, not self.all_numbers, self.value is None, badness


def bars_of(table, figure):
    """Where there is something to draw."""
    bars = [Bar(row, row.summaries[figure['key']]) for row in table.rows]
    groups = [sorted(group, key=lambda bar: bar.order(figure.get('best')))
              for _, group in itertools.groupby([bar for bar in bars if bar.text], lambda bar: bar.group)]
    y = 0.5
    for group in groups:
        for bar in group:
            bar.y = y
            y += 1
        y += GROUP_GAP
    return [bar for group in groups for bar in group], y - GROUP_GAP - 0.5


class Scale:
    """The axis along the bars: logarithmic when they are too different, and long enough for the text behind them."""

    def __init__(self, bars, width):
        # Beyond this the bars would have no room.
        self.bars, self.width, self.text_max = [bar for bar in bars if bar.value is not None], width, 0.6 * width
        values = [bar.value for bar in self.bars]
        positive = [value for value in values if value > 0]
        self.is_log = bool(positive) and min(values) >= 0 and max(positive) > LOG_FROM * min(positive)
        if self.is_log:
            self.begin = min(positive + [bar.low for bar in self.bars if bar.low > 0]) / 2
        else:
            self.begin = min([0, *(bar.low for bar in self.bars)])
        self.origin = self.begin if self.is_log else 0
        self.is_empty = not any(values)
        self.end = self.reach()

    def reach(self):
        """Where the axis has to end for the text behind each bar to fit."""
        begin = self.forward(self.begin)
        lengths = [(self.forward(self.text_at(bar)) - begin) * self.width / (self.width - VALUE_GAP - 4 - min(
            text_width(bar.text), self.text_max)) for bar in self.bars]
        longest = max(lengths, default=0) or 1
        return 10 ** (begin + longest) if self.is_log else begin + longest

    def forward(self, value):
        return math.log10(value) if self.is_log else value

    def clip(self, value):
        return max(value, self.begin)

    def text_at(self, bar):
        return self.origin if bar.value is None else max(bar.high, self.origin)


def with_unit(figure):
    return f'{figure["title"]} ({figure["unit"]})' if figure.get('unit') else figure['title']


def details(figure, bars):
    better = {'least': ', less is better', 'most': ', more is better'}.get(figure.get('best'), '')
    ranges = '; median and range of the rounds' if any(bar.low != bar.high for bar in bars) else ''
    return f'{with_unit(figure)}{", total of the rounds" if figure.get("total") else ""}{better}{ranges}'


def bar_chart(table, figure):
    bars, n_rows = bars_of(table, figure)
    left = 12 + min(max(text_width(bar.title) for bar in bars), LABEL_MAX) + 10
    titles = [wrap(bar.title, LABEL_MAX, 2) for bar in bars]
    row = max(ROW, LINE * max(map(len, titles)) + 6)
    right, top, bottom = 24, 54, 50
    scale = Scale(bars, WIDTH - left - right)
    if scale.is_empty:
        bottom = 12
    script = Script(top + n_rows * row + bottom)
    script.margins(left, right, top, bottom)
    script.heading(table.title, details(figure, bars))
    script.add(f'set xrange [{scale.begin!r}:{scale.end!r}]', f'set yrange [{n_rows}:0]')
    if scale.is_log:
        script.add('set logscale x')
    if not scale.is_empty:
        title = with_unit(figure) + (', logarithmic' if scale.is_log else '')
        script.add(f"set border 1 lc rgb '{MUTED}'", f"set grid xtics back lt 1 lc rgb '{GRID}' lw 1",
                   f"set xtics nomirror out offset 0,0.5 font ',{FONT - 1}' textcolor rgb '{MUTED}'",
                   "set format x '%g'")
        script.label(shorten(clean(title), scale.width, FONT - 1),
                     script.pixel(left + scale.width / 2, script.height - 12), 'center', color=MUTED, size=FONT - 1)
    for bar, lines in zip(bars, titles):
        for i, line in enumerate(lines):
            y = top + bar.y * row + (i - (len(lines) - 1) / 2) * LINE
            script.label(line, script.pixel(left - 10, y), 'right', bold=bar.is_ours)
        script.label(shorten(bar.text, (scale.width if bar.value is None else scale.text_max) - VALUE_GAP),
                     f'first {scale.text_at(bar)!r}, first {bar.y}', bold=bar.is_ours,
                     color=MUTED if bar.value is None else INK, shift=VALUE_GAP)
    add_bars(script, bars, scale)
    return script


def add_bars(script, bars, scale):
    solid = [bar for bar in bars if bar.value and scale.clip(bar.value) != scale.origin]
    script.add('$bars << EOD')
    for bar in solid:
        ends = sorted((scale.origin, scale.clip(bar.value)))
        script.add(f'{bar.value!r} {bar.y} {ends[0]!r} {ends[1]!r} {bar.y - BAR / 2} {bar.y + BAR / 2} '
                   f'0x{(OURS if bar.is_ours else OTHERS)[1:]}')
    script.add('EOD')
    for bar in bars:
        low, high = (None if end is None else scale.clip(end) for end in (bar.low, bar.high))
        if low != high:
            script.add(f'set arrow from first {low!r}, first {bar.y} to first {high!r}, first {bar.y} '
                       f"heads size screen 0.006,90 front lw 1.3 lc rgb '{INK}'")
    # There has to be something to plot.
    boxes = ['$bars using 1:2:3:4:5:6:7 with boxxyerror lc rgb variable fs solid 1.0 noborder notitle'] if solid else []
    script.add('plot ' + ', '.join(['NaN notitle', *boxes]))


def bar_alt(table, figure):
    bars = bars_of(table, figure)[0]
    unit = f' in {figure["unit"]}' if figure.get('unit') else ''
    return clean(f'{table.title}, {figure["title"]}{unit}: ' + '; '.join(f'{bar.title} {bar.text}' for bar in bars))


# --- what planned events cost ---

class Losses:
    """Requests lost in planned events: columns [(title, whether it is per event)], rows [(title, is_ours, cells)]; a
    cell is a number, words, or None for who was not in it."""

    def __init__(self, tables):
        by_key = {table.key: table for table in tables}
        there = [(by_key[key], title) for key, title in EVENTS
                 if key in by_key and any(row.summaries.get('failed') for row in by_key[key].rows)]
        self.columns = [(title, any(figure['key'] == 'events' for figure in table.figures)) for table, title in there]
        names = {}
        for table, _ in there:
            for row in table.rows:
                names.setdefault(row.key.partition('@')[0], row)
        # Series have it behind the title of the contender.
        self.rows = [(row.title.removesuffix(f', {row.series}'), row.is_ours,
                      [self.cell(table, key) for table, _ in there]) for key, row in names.items()]
        self.rows.sort(key=self.order)

    @staticmethod
    def cell(table, key):
        rows = [row for row in table.rows if row.key.partition('@')[0] == key]
        if not rows:
            return None
        lost = [row.summaries['failed'] for row in rows]
        events = [row.summaries['events'] for row in rows if 'events' in row.summaries]
        if any(summary.numbers for summary in lost):
            total = sum(sum(summary.numbers.values()) for summary in lost)
            n = sum(sum(summary.numbers.values()) for summary in events) if events else 1
            return total / n if n else None
        words = [word for summary in lost for word in summary.words]
        return words[0] if words else '?' if any(row.errors for row in rows) else None

    @staticmethod
    def order(row):
        """Ours first, then from least to most."""
        numbers = [cell for cell in row[2] if isinstance(cell, (int, float))]
        return not row[1], not numbers, sum(numbers) / max(len(numbers), 1)


def lost_text(value):
    if isinstance(value, str):
        return value
    return ('–' if value is None else f'{value:.0f}' if value >= 100 or value == int(value) else
            f'{value:.1f}' if value >= 1 else f'{value:.2g}')


def colors(value):
    if not isinstance(value, (int, float)):
        return EMPTY, MUTED
    return next((color, ink) for limit, color, ink in HEAT if value <= limit)


def heat_table(losses):
    left = 12 + min(max(text_width(clean(title)) for title, *_ in losses.rows), LABEL_MAX) + 10
    column = min((WIDTH - left - 12) / len(losses.columns), 160)
    titles = [wrap(title + ('' if per_event else ', in all'), column - 8, 3, FONT - 1)
              for title, per_event in losses.columns]
    n_lines = max(map(len, titles))
    row, top, legend = ROW + 2, 54 + n_lines * LINE + 6, 38
    script = Script(top + len(losses.rows) * row + legend)
    # One unit is one pixel.
    script.margins(0, 0, 0, 0)
    script.add(f'set xrange [0:{WIDTH}]', f'set yrange [{script.height}:0]')
    script.heading('Requests lost in planned events',
                   'each time that it happens; – took no part, ? could not be measured')
    for i, lines in enumerate(titles):
        for k, line in enumerate(lines):
            y = top - 10 - (len(lines) - 1 - k) * LINE
            script.label(line, script.pixel(left + (i + 0.5) * column, y), 'center', color=MUTED, size=FONT - 1)
    for i, (title, is_ours, cells) in enumerate(losses.rows):
        y = top + (i + 0.5) * row
        script.label(wrap(title, LABEL_MAX, 1)[0], script.pixel(left - 10, y), 'right', bold=is_ours)
        for k, value in enumerate(cells):
            cell(script, left + k * column, top + i * row, column, row, lost_text(value), colors(value), value == 0)
    add_legend(script, left, top + len(losses.rows) * row + 10)
    script.add('plot NaN notitle')
    return script


def cell(script, x, y, width, height, text, color, bold):
    script.add(f"set object rectangle from {x + 1},{y + 1} to {x + width - 1},{y + height - 1} "
               f"fillcolor rgb '{color[0]}' fillstyle solid 1.0 noborder")
    script.label(shorten(clean(text), width - 6), script.pixel(x + width / 2, y + height / 2), 'center', color=color[1],
                 bold=bold)


def add_legend(script, x, y):
    names = ['0', 'up to 1', 'to 10', 'to 100', 'to 1000', 'more']
    width = min(76, (WIDTH - x - 12) / len(names))
    for i, (name, (_, color, ink)) in enumerate(zip(names, HEAT)):
        script.add(f"set object rectangle from {x + i * width + 1},{y} to {x + (i + 1) * width - 1},{y + 18} "
                   f"fillcolor rgb '{color}' fillstyle solid 1.0 noborder")
        script.label(name, script.pixel(x + (i + 0.5) * width, y + 9), 'center', color=ink, size=FONT - 2)


def heat_alt(losses):
    names = [title for title, _ in losses.columns]
    return clean('Requests lost each time: ' + '; '.join(
        f'{title}: ' + ', '.join(f'{name} {lost_text(value)}' for name, value in zip(names, cells) if value is not None)
        for title, _, cells in losses.rows))


# --- all of them ---

class Plots:
    """Written to a directory when made.

    failures    (file name, what it shows) of the plot of planned events, or None
    problems    what could not be drawn, and why
    """

    def __init__(self, directory, tables):
        self.directory, self.problems, self.failures, self.by_scenario = directory, [], None, {}
        if not shutil.which('gnuplot'):
            self.problems.append('There are no plots: gnuplot is not installed (Debian package gnuplot-nox).')
            return
        losses = Losses(tables)
        if losses.rows:
            self.failures = self.draw('failures.svg', heat_table, heat_alt, losses)
        for table in tables:
            drawn = [self.draw(file_name(table.key, figure['key']), bar_chart, bar_alt, table, figure)
                     for figure in table.figures if figure.get('plot') and bars_of(table, figure)[0]]
            self.by_scenario[table.key] = [each for each in drawn if each]

    def of(self, table):
        """[(file name, what it shows)]"""
        return self.by_scenario.get(table.key, [])

    def draw(self, name, make, describe, *arguments):
        description = describe(*arguments)
        problem = make(*arguments).draw(self.directory / name, description)
        if problem:
            self.problems.append(problem)
            return None
        return name, description

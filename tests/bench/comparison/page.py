# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Writes a comparison as one page that a person reads: no script, nothing from elsewhere but the plots beside it."""

import html

TITLE = 'fcgi-pool, head to head'
NO_GOALS = 'Nothing was measured that there is a goal for.'

STYLE = '''
:root { color-scheme: light dark; --ink: #1f2328; --muted: #59636e; --ground: #fff; --line: #d8dee4; --ours: #eaf2fe;
        --good: #1a7f37; --bad: #c01c28; --link: #0b57d0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --muted: #a0a8b2; --ground: #15181c; --line: #363c44; --ours: #1b2a40;
          --good: #4ac26b; --bad: #ff7b72; --link: #79b0ff; }
}
body { font: 16px/1.5 sans-serif; color: var(--ink); background: var(--ground); margin: 2rem auto; padding: 0 1rem;
       max-width: 76rem; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
a { color: var(--link); }
p, ul, dl { max-width: 46rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; margin: 1rem 0; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; }
thead th { vertical-align: bottom; }
th[scope=row], .text { text-align: left; }
tr.ours { background: var(--ours); }
tbody + tbody { border-top: 3px solid var(--line); }
small { color: var(--muted); font-weight: 400; display: block; white-space: nowrap; }
small.words { white-space: normal; }
td strong::after { content: " ★"; color: var(--good); }
td { white-space: nowrap; }
td.text { white-space: normal; }
td.say { min-width: 7rem; text-align: right; }
td.short, a.short { white-space: nowrap; }
.met { color: var(--good); font-weight: 600; }
.missed { color: var(--bad); font-weight: 600; }
.note { border-left: 4px solid var(--bad); padding-left: 0.8rem; }
.question { font-size: 1.1rem; }
'''


def escape(text):
    return html.escape(str(text), quote=True)


def element(name, content, **attributes):
    """content is HTML. An attribute of None is left out."""
    said = ''.join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
                   for key, value in attributes.items() if value is not None)
    return f'<{name}{said}>{content}</{name}>'


def paragraphs(text, class_):
    return ''.join(element('p', escape(' '.join(part.split())), class_=class_)
                   for part in text.split('\n\n') if part.strip())


def small(text, class_=None):
    return element('small', escape(text), class_=class_) if text else ''


def rows_of(rows):
    return '\n'.join(rows)


def table_element(header, bodies):
    """header: cells; bodies: lists of rows."""
    head = element('thead', element('tr', ''.join(header)))
    return element('div', element('table', head + ''.join(element('tbody', rows_of(rows)) for rows in bodies)),
                   class_='wide')


def image(plot):
    name, alt = plot
    return element('p', f'<img src="{escape(name)}" alt="{escape(alt)}" loading="lazy">')


# --- parts ---

def machine_section(about, versions, tables):
    n_contenders = len({row.key.partition('@')[0] for table in tables for row in table.rows})
    parts = [element('p', escape(
        f'{n_contenders} contenders took turns on one machine, in {len(tables)} scenarios. What counts is the median '
        'over the rounds, and how far the rounds lie apart. Ratios are taken within a round, so that what disturbs the '
        'machine for long disturbs all alike.')),
        element('p', escape(about))]
    if versions:
        rows = [element('tr', element('th', escape(name), scope='row') + element('td', escape(version), class_='text'))
                for name, version in sorted(versions.items())]
        header = [element('th', name, scope='col', class_='text') for name in ('package', 'version')]
        parts.append(table_element(header, [rows]))
    return ''.join(parts)


def goal_row(goal):
    links = ', '.join(element('a', escape(key), href=f'#{key}', class_='short') for key in goal['where'].split(', '))
    return element('tr', ''.join([
        element('th', escape(goal['title']) + small(goal['note'], 'words'), scope='row'),
        element('td', escape(goal['value']) + small(goal['range'])), element('td', escape(goal['n'])),
        element('td', escape(goal['goal']), class_='text short'),
        element('td', 'met' if goal['met'] else 'missed', class_='text met' if goal['met'] else 'text missed'),
        element('td', links, class_='text')]))


def goals_section(goals):
    if not goals:
        return element('p', NO_GOALS)
    header = [element('th', name, scope='col', class_=None if name in ('value', 'n') else 'text')
              for name in ('goal', 'value', 'n', 'wanted', '', 'from')]
    return table_element(header, [[goal_row(goal) for goal in goals]])


def value_cell(summary, with_ratio):
    value, words = escape(summary.value_text()), summary.words_text()
    if not value:
        return element('td', escape(words) if words else '<span aria-label="nothing">–</span>',
                       class_='text say' if words else None)
    parts = [element('strong', value) if summary.is_best else value, small(summary.range_text()), small(words, 'words')]
    if with_ratio and summary.ratios:
        parts.append(small(f'× {summary.ratio_text()} {summary.ratio_range_text()}'))
    return element('td', ''.join(parts))


def contender_row(table, row):
    name = escape(row.title) + (element('small', element('code', escape(row.verb))) if row.verb else '')
    cells = [value_cell(row.summaries[figure['key']], table.has_ratios(figure) and not row.is_reference)
             for figure in table.figures]
    return element('tr', element('th', name, scope='row') + ''.join(cells) + element('td', row.n),
                   class_='ours' if row.is_ours else None)


def figure_header(figure):
    notes = [figure.get('unit'), 'total' if figure.get('total') else None,
             {'least': 'less is better', 'most': 'more is better'}.get(figure.get('best'))]
    return element('th', escape(figure['title']) + small(', '.join(filter(None, notes))), scope='col')


def results_table(table):
    header = [element('th', 'contender', scope='col', class_='text'), *map(figure_header, table.figures),
              element('th', 'n', scope='col')]
    bodies = {}
    for row in table.rows:
        bodies.setdefault(row.group, []).append(contender_row(table, row))
    return table_element(header, bodies.values())


def scenario_section(table, plots):
    parts = [element('h2', escape(table.title)), paragraphs(table.question, 'question'), *map(image, plots.of(table)),
             results_table(table) if table.rows else element('p', 'Nothing was measured.')]
    if table.errors():
        items = ''.join(element('li', escape(line)) for line in table.errors())
        parts.append(element('p', 'Not measured:') + element('ul', items))
    if table.method:
        parts.append(element('h3', 'How it is measured') + paragraphs(table.method, 'method'))
    return element('section', '\n'.join(parts), id=table.key)


def contents(tables):
    items = ''.join(element('li', element('a', escape(table.title), href=f'#{table.key}')) for table in tables)
    return element('nav', element('ul', items), aria_label='Scenarios')


def write_page(file, about, versions, tables, goals, plots):
    """about: text on the machine; goals: with values and ranges as text; tables and plots: of report.py and plot.py."""
    legend = ('In the tables: the median (least to greatest of the rounds), or the total over the rounds where it says '
              'so; × is the ratio to fcgi-pool in the same round; a star is with the best; n is the number of rounds.')
    parts = [element('h1', escape(TITLE)), element('h2', 'What was compared, and where'),
             machine_section(about, versions, tables), contents(tables), element('h2', 'Goals'), goals_section(goals)]
    if plots.failures:
        parts += [element('h2', 'What planned events cost'), image(plots.failures)]
    parts += [element('p', escape(problem), class_='note') for problem in plots.problems]
    parts.append(element('p', escape(legend)))
    parts += [scenario_section(table, plots) for table in tables]
    parts.append(element('footer', element('h2', 'Raw data') + element(
        'p', element('a', 'results.json', href='results.json') + ': all rounds of all contenders, as measured.')))
    file.write('<!DOCTYPE html>\n<!-- SPDX-License-Identifier: LGPL-2.1-or-later; '
               'SPDX-FileCopyrightText: fcgi-pool contributors -->\n'
               '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
               '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
               f'<title>{escape(TITLE)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
               + '\n'.join(parts) + '\n</body>\n</html>\n')

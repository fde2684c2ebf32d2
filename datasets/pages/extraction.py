"""Extracts archives of pages: checks the options, goes on after a stop, shows progress, writes `extraction.json`."""
import collections
import contextlib
import functools
import json
import os
import shutil
import time
from importlib.metadata import version

from configs import errors, progress, reading, storage
from configs.errors import UserError
from datasets import plans
from datasets.jobs import workers
from datasets.pages import archive_texts, archives, extractors, warc
from datasets.pages.archive_texts import STATE

SUMMARY = "extraction.json"
OPTIONS = "options.json"


def arguments(parser, argv):
    """Parses and checks the options of a command, with those that both commands have.  Raises UserError."""
    add = parser.add_argument
    add("--output_dir", required=True, help="local folder for the texts, OUTPUT_DIR/MONTH/STEM.txt")
    add("--extractor", dest="extractors", metavar="EXTRACTOR", type=extractors.parse_names, default="trafilatura",
        help=f"{', '.join(extractors.EXTRACTORS)} (text: the pages are text already), or several with commas between "
             "them: the first that yields enough counts")
    add("--minimum_characters", type=errors.at_least(1), default=100, help="texts below are dropped")
    add("--language", help="keep texts in this language only, for example en")
    add("--page_seconds", type=errors.checked(float, lambda value: 0 < value < 1e6, "more than 0, less than a million"),
        default=10.0, help="of the processor's time that a page may take")
    add("--page_bytes", type=errors.at_least(1), default=archives.MAX_BYTES, help="pages above are left out")
    workers.add_arguments(parser, "the texts do not depend on it", "--n_procs")
    add("--keep_damaged", action="store_true",
        help="of an archive that is cut short or damaged, keep the texts before the damage")
    args = parser.parse_args(argv)
    if storage.is_remote(args.output_dir):
        raise UserError(f"--output_dir {args.output_dir}: write to a local folder and copy it with `gsutil -m cp`")
    with errors.packages_from("requirements-data.txt"):
        extractors.versions(args.extractors)
        from resiliparse.parse import lang
        if args.language and args.language not in lang.supported_langs():
            raise UserError(f"--language {args.language}: not one of {' '.join(sorted(lang.supported_langs()))}")
    return args


def run(paths, args):
    """Extracts the archives and prints what came of them.  Raises UserError where one is damaged."""
    _check_names(paths)
    os.makedirs(os.path.join(args.output_dir, STATE), exist_ok=True)
    _settle_options(paths, args)
    damages, left = [], [path for path in paths if not _finished(args.output_dir, path)]
    if left:
        damages = _extract(left, sum(map(os.path.getsize, paths)), args)
    else:
        print(f"{args.output_dir}: all of {len(paths)} archives are extracted already: nothing to do")
    _summarise(args.output_dir)
    if damages:
        raise UserError(f"{len(damages)} of {len(paths)} archives damaged, {args.output_dir} has no text of them "
                        f"(--keep_damaged takes what can be read; the same command again takes a better copy): "
                        + "; ".join(damages))


def _extract(paths, total, args):
    """Extracts the archives that are left of `total` bytes; returns what is wrong with damaged ones, sorted."""
    start, damages, counts = time.monotonic(), [], collections.Counter()
    sizes = {path: os.path.getsize(path) for path in paths}
    largest_first = sorted(paths, key=lambda path: (-sizes[path], path))  # not last and alone
    each = 1 if args.ray_address else max(1, args.processes // len(paths))
    extract, state = functools.partial(archive_texts.extract, args, each), os.path.join(args.output_dir, STATE)
    with progress.bar(total, unit="B", done=total - sum(sizes.values()), unit_scale=True) as bar:
        for report in workers.each(extract, largest_first, args.processes, state, bar.update, args.ray_address):
            if report.damage and not args.keep_damaged:
                damages.append(report.damage)
                continue
            counts.update(report.outcomes)
            bar.set_postfix_str(f"{counts['pages']} pages, {counts['kept']} kept", refresh=False)
    seconds = time.monotonic() - start
    print(f"{len(paths) - len(damages)} archives, {counts['pages']} pages, {counts['kept']} kept "
          f"in {seconds:.1f} s: {counts['pages'] / seconds:.1f} pages/s")
    return sorted(damages)


def _finished(output_dir, path):
    """Whether an archive has its mark; removes what a kill right after the mark left."""
    report, base = archive_texts.finished(output_dir, path), archive_texts.base_of(output_dir, path)
    if report and any(os.path.exists(base + suffix) for suffix in (archive_texts.LOCK, archive_texts.COMPLETE)):
        with contextlib.suppress(UserError), storage.only_run(base + archive_texts.LOCK, "let it clear up"):
            shutil.rmtree(base + archive_texts.COMPLETE, ignore_errors=True)
    return report is not None


def _summarise(output_dir):
    """Writes SUMMARY over all archives that ever were extracted to the folder, and prints its table."""
    path, state = os.path.join(output_dir, SUMMARY), os.path.join(output_dir, STATE)
    with archive_texts.publishing(output_dir):
        reports = [archive_texts.load(os.path.join(state, name)) for name in sorted(os.listdir(state))
                   if name.endswith(archive_texts.DONE)]
        # These are fewer than all that were kept where two archives of a month share pages.
        documents = sum(name.endswith(".txt") for entry in os.scandir(output_dir)
                        if entry.is_dir() and entry.path != state for name in os.listdir(entry.path))
        totals = {name: sum(report.outcomes[name] for report in reports) for name in archive_texts.OUTCOMES}
        content = {"archives": len(reports), "bytes": sum(report.size for report in reports),
                   "documents": documents, "outcomes": totals,
                   "damaged": [report.archive for report in reports if report.damage],
                   "options": reading.read_object(os.path.join(state, OPTIONS)),
                   "reports": [report._asdict() for report in reports]}
        if not os.path.exists(path) or reading.read_object(path) != content:
            storage.write_whole(path, json.dumps(content, indent=1) + "\n")
    for name, count in totals.items():
        if count or name in ("pages", "kept"):
            share = f"{count / totals['pages']:8.2%}" if name in archive_texts.JUDGED and totals["pages"] else ""
            print(f"{name:15}{count:12}{share}")
    print(f"{'documents':15}{documents:12}\n{path}")


def _check_names(paths):
    """Raises UserError where an archive is not there, cannot be read here, or has a name that is not its own."""
    names = {}
    for path in paths:
        name = os.path.basename(path)
        if not os.path.isfile(path):
            raise UserError(f"{path}: no such archive{storage.looked_for_in(path)}")
        if name.startswith("."):
            raise UserError(f"{path}: rename it so that it does not begin with a dot")
        if os.path.realpath(names.setdefault(name, path)) != os.path.realpath(path):
            raise UserError(f"{names[name]} and {path} have the same name: rename one, or extract it to a folder of "
                            "its own")
    with errors.packages_from("requirements-data.txt"):
        if any(path.endswith(warc.SUFFIXES) for path in paths):
            version("fastwarc")


def _settle_options(paths, args):
    """Writes down all that decides the texts.  Raises UserError where the folder holds texts made in another way."""
    names = ("extractors", "minimum_characters", "language", "page_seconds", "page_bytes")
    values = {**{name: getattr(args, name) for name in names}, "tools": extractors.versions(args.extractors)}
    path = os.path.join(args.output_dir, STATE, OPTIONS)
    if os.path.exists(path):
        plans.check(reading.read_object(path), values, f"{args.output_dir} already holds texts made",
                    "choose another --output_dir")
        return
    for folder in (os.path.join(args.output_dir, archives.month_of(archive)) for archive in paths):
        if os.path.exists(folder):
            raise UserError(f"{folder} is there already, from elsewhere: choose another --output_dir")
    storage.write_whole(path, json.dumps(values, indent=1))

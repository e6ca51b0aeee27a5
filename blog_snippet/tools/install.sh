#!/usr/bin/env bash
# usage: install.sh [--dry-run] [--undo] BLOG
# Puts the snippet into a chirpy blog, or takes it out again. Shows what it changes; run again, it changes nothing.
#   _includes/clickstream.html, tools/inject-ingest-url.sh   copied
#   _includes/metadata-hook.html                             one line is added, or the file made
#   .github/workflows/                                       two steps are added, or pages-deploy.yml made:
#                                                            the URL goes in before the build, the pages are checked after it
# --undo takes all of it out. --dry-run shows the same and changes nothing.
set -euo pipefail
export LC_ALL=C

usage() {
  sed -n '/^# usage/,/^[^#]/s/^# //p' "$0"
}

undo=no dry_run=no
while :; do
  case ${1:-} in
    --undo) undo=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage; exit 0 ;;
    *) break ;;
  esac
  shift
done
if [ $# -ne 1 ] || [ "${1#-}" != "$1" ]; then
  usage >&2
  exit 64
fi
if [ ! -f "$1/_config.yml" ]; then
  printf >&2 'install: %s is no Jekyll blog: it has no _config.yml.\nNext: name the folder that holds _config.yml.\n' "$1"
  exit 1
fi
snippet=$(cd "$(dirname "$0")/.." && pwd)
cd "$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
changes=0
if [ "$dry_run" = yes ]; then
  # The same changes, to a copy of what is looked at. Links are followed: through a link, a change would reach the blog.
  for part in _config.yml _layouts _includes/metadata-hook.html _includes/clickstream.html* tools/inject-ingest-url.sh* .github/workflows; do
    if [ -e "$part" ]; then
      mkdir -p "$work/blog/$(dirname "$part")"
      cp -RL "$part" "$work/blog/$part"
    fi
  done
  cd "$work/blog"
fi

# Files are compared and copied whole, so that every byte comes back: $(…) would drop a last line break.
change() { # FILE NEW: show the difference and make it
  if [ ! -e "$1" ]; then
    printf 'new file %s\n' "$1"
    mkdir -p "$(dirname "$1")"
    cp -p "$2" "$1"
  elif ! cmp -s "$1" "$2"; then
    diff -u -L "$1" -L "$1" "$1" "$2" || true
    cat "$2" >"$1"   # not mv: the file keeps its mode
  else
    return 0
  fi
  changes=$((changes + 1))
}

remove() { # FILE
  printf 'removed %s\n' "$1"
  rm -f "$1"
  rmdir -p "$(dirname "$1")" 2>/dev/null || true   # as far as nothing else is in it
  changes=$((changes + 1))
}

copy() { # FILE: ours; one of the blog's own is kept beside it
  if [ -e "$1" ] && ! cmp -s "$snippet/$1" "$1"; then
    if [ -e "$1.before-install" ]; then
      printf >&2 'install: %s was changed since it was installed; it is left as it is.\n' "$1"
      printf >&2 'Next: run install.sh --undo first, or copy the new one by hand.\n'
      return
    fi
    printf 'your own %s is kept as %s.before-install\n' "$1" "$1"
    mv "$1" "$1.before-install"
  fi
  change "$1" "$snippet/$1"
}

take_back() { # FILE
  if [ ! -e "$1" ]; then return; fi
  if ! cmp -s "$snippet/$1" "$1"; then
    printf >&2 'install: %s is not what was installed; it is left as it is.\nNext: delete it by hand if nothing needs it.\n' "$1"
  elif [ -e "$1.before-install" ]; then
    printf 'your own %s is back\n' "$1"
    mv "$1.before-install" "$1"
    changes=$((changes + 1))
  else
    remove "$1"
  fi
}

hook=_includes/metadata-hook.html
line='{% include clickstream.html %}'

install_hook() {
  if [ ! -e "$hook" ]; then
    change "$hook" "$snippet/$hook"
  elif ! grep -qF 'include clickstream.html' "$hook"; then
    cp "$hook" "$work/hook"
    # The line and one line break, before it or after it, whichever leaves the end of the file as it was.
    if [ -n "$(tail -c 1 "$hook")" ]; then
      printf '\n%s' "$line" >>"$work/hook"
    else
      printf '%s\n' "$line" >>"$work/hook"
    fi
    change "$hook" "$work/hook"
  fi
}

undo_hook() {
  if [ ! -e "$hook" ]; then return; fi
  if cmp -s "$hook" "$snippet/$hook"; then
    remove "$hook"
  elif [ "$(tail -c $((${#line} + 1)) "$hook" | tr -d '\n')" = "$line" ]; then
    head -c $(($(wc -c <"$hook") - ${#line} - 1)) "$hook" >"$work/hook"
    change "$hook" "$work/hook"
  elif grep -qF 'include clickstream.html' "$hook"; then
    printf >&2 'install: the line in %s is not the last one any more.\nNext: delete %s there by hand.\n' "$hook" "$line"
  fi
}

starter=.github/workflows/pages-deploy.yml
building=$(grep -lE '^[^#]*jekyll b' .github/workflows/*.yml .github/workflows/*.yaml 2>/dev/null || true)
# Of several that build, the one that publishes.
workflow=$(printf '%s\n' "$building" | while read -r each; do if [ -n "$each" ] && grep -qF 'deploy-pages' "$each"; then printf '%s\n' "$each"; fi; done | head -n 1)
workflow=${workflow:-$(printf '%s\n' "$building" | head -n 1)}

# shellcheck disable=SC2016  # GitHub fills that in, not the shell
step() { # INDENT NAME ARGUMENTS: a step that runs our script
  printf '%s- name: %s\n' "$1" "$2"
  printf '%s  run: bash tools/inject-ingest-url.sh %s\n' "$1" "$3"
  printf '%s  env:\n' "$1"
  printf '%s    INGEST_API_GATEWAY_URL: ${{ secrets.INGEST_API_GATEWAY_URL || vars.INGEST_API_GATEWAY_URL }}\n' "$1"
}

# Of the step that builds: the line it begins on, how far it is indented, its last line, and the folder it builds into.
# A comment between two steps belongs to the second one. What follows a $ in the folder is known to GitHub only.
building_step() {
  awk '
    { match($0, /^ */); command = $0 }
    built && /[^ \r]/ && RLENGTH <= indent { exit }
    !built && /^ *- / { begin = NR; indent = RLENGTH }
    !built && /^[^#]*jekyll b/ { built = isCommand = 1; sub(/.*jekyll b/, "", command) }
    built && /[^ \r]/ { end = NR }
    isCommand {
      sub(/[;&|].*/, "", command)
      if (match(command, /(-d|--destination)[ =]+["\047]?[^ "\047\r]*/)) {
        folder = substr(command, RSTART, RLENGTH)
        sub(/^(-d|--destination)[ =]+["\047]?/, "", folder)
        sub(/\$.*/, "", folder)
        if (folder == "") { folder = "?" }
      }
      isCommand = /\\\r?$/
    }
    END { print begin, indent, end, folder }
  ' "$workflow"
}

install_steps() {
  if [ -z "$workflow" ] && [ ! -e "$starter" ]; then
    change "$starter" "$snippet/$starter"
    return
  elif [ -z "$workflow" ]; then
    printf >&2 'install: no step of %s builds with jekyll.\n' "$starter"
    printf >&2 'Next: run tools/inject-ingest-url.sh before the build by hand, and with --check after it.\n'
    return
  fi
  read -r begin spaces end site <<<"$(building_step)"
  indent=$(printf '%*s' "$spaces" '')
  if [ -z "$site" ]; then
    site=$(sed -n 's/^destination: *//p' _config.yml | sed 's/ *#.*//' | tr -d "\"'\r" | head -n 1)
  fi
  site=${site:-_site}
  cp "$workflow" "$work/workflow"
  # The later one first, so that the lines before it keep their numbers.
  if [ "$site" = '?' ]; then
    printf >&2 'install: only GitHub knows into which folder %s builds.\n' "$workflow"
    printf >&2 'Next: add a step after the build by hand: bash tools/inject-ingest-url.sh --check FOLDER\n'
  elif ! grep -qF 'inject-ingest-url.sh --check' "$workflow"; then
    {
      head -n "$end" "$workflow"
      # A file that ends without a line break goes on ending so.
      if [ "$end" -gt "$(wc -l <"$workflow")" ]; then
        printf '\n\n%s' "$(step "$indent" 'Check the ingest URL' "--check $site")"
      else
        printf '\n'
        step "$indent" 'Check the ingest URL' "--check $site"
        tail -n "+$((end + 1))" "$workflow"
      fi
    } >"$work/workflow"
  fi
  if ! grep -F 'inject-ingest-url.sh' "$workflow" | grep -qvF -- --check; then
    cp "$work/workflow" "$work/checked"
    {
      head -n $((begin - 1)) "$work/checked"
      step "$indent" 'Inject the ingest URL' .
      printf '\n'
      tail -n "+$begin" "$work/checked"
    } >"$work/workflow"
  fi
  change "$workflow" "$work/workflow"
}

undo_step() { # NAME ABOVE: takes the step from the workflow's copy, with its empty line, which is below it, or ABOVE=1 line above
  read -r at spaces <<<"$(awk -v name="- name: $1" 'index($0, name) { match($0, /^ */); print NR, RLENGTH; exit }' "$work/workflow")"
  if [ -z "$at" ]; then return; fi
  arguments=$(sed -n "$((at + 1))s/^ *run: bash tools\/inject-ingest-url.sh //p" "$work/workflow")
  from=$((at - $2))
  if [ "$(sed -n "$at,$((at + 3))p" "$work/workflow")" != "$(step "$(printf '%*s' "$spaces" '')" "$1" "$arguments")" ] ||
    [ -n "$(sed -n "$((from + 4 * (1 - $2)))p" "$work/workflow")" ]; then
    printf >&2 'install: the step "%s" in %s was changed.\nNext: delete it there by hand.\n' "$1" "$workflow"
    return
  fi
  cp "$work/workflow" "$work/before"
  head -n $((from - 1)) "$work/before" >"$work/workflow"
  if [ $((from + 4)) -gt "$(wc -l <"$work/before")" ] && [ -n "$(tail -c 1 "$work/before")" ]; then
    # It was put below a last line without a line break.
    head -c $(($(wc -c <"$work/workflow") - 1)) "$work/workflow" >"$work/shorter"
    mv "$work/shorter" "$work/workflow"
  else
    tail -n "+$((from + 5))" "$work/before" >>"$work/workflow"
  fi
}

undo_steps() {
  if [ -z "$workflow" ] || ! grep -qF 'inject-ingest-url.sh' "$workflow"; then return; fi
  if cmp -s "$workflow" "$snippet/$starter"; then
    remove "$workflow"
    return
  fi
  cp "$workflow" "$work/workflow"
  undo_step 'Inject the ingest URL' 0
  undo_step 'Check the ingest URL' 1
  change "$workflow" "$work/workflow"
}

if [ "$undo" = yes ]; then
  undo_steps
  undo_hook
  take_back tools/inject-ingest-url.sh
  take_back _includes/clickstream.html
else
  copy _includes/clickstream.html
  copy tools/inject-ingest-url.sh
  install_hook
  install_steps
  printf '%s\n' "$building" | while read -r each; do
    if [ -n "$each" ] && [ "$each" != "$workflow" ]; then
      printf '%s builds with jekyll too and is left as it is. Where it publishes pages, it needs the same two steps.\n' "$each"
    fi
  done
  if grep -rlF 'include clickstream.html' _layouts 2>/dev/null; then
    printf 'The layouts above include the snippet too. Every page has it from %s now: delete that line.\n' "$hook"
  fi
  if [ -n "$workflow" ] && grep -nF 's#INGEST_API_GATEWAY_URL#' "$workflow"; then
    printf 'The sed above in %s does the same, and breaks on a URL with &: delete that step.\n' "$workflow"
  fi
fi
if [ "$changes" = 0 ]; then
  printf 'nothing to change\n'
elif [ "$dry_run" = yes ]; then
  printf 'Nothing was changed. Next: the same without --dry-run.\n'
elif [ "$undo" != yes ]; then
  printf 'Next: set INGEST_API_GATEWAY_URL on GitHub (Settings, Secrets and variables, Actions) before you push; without it the build stops.\n'
  printf 'Then: the step "Check the ingest URL" of the build says how many pages report to it, and stops the build when one does not.\n'
fi

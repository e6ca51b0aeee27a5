#!/usr/bin/env bash
# usage: install.sh [--undo] BLOG
# Puts the snippet into a chirpy blog, or takes it out again. Shows what it changes; run again, it changes nothing.
#   _includes/clickstream.html, tools/inject-ingest-url.sh   copied
#   _includes/metadata-hook.html                             one line is added, or the file made
#   .github/workflows/                                       one step before the build is added, or pages-deploy.yml made
set -euo pipefail
export LC_ALL=C

undo=no
if [ "${1:-}" = --undo ]; then
  undo=yes
  shift
fi
if [ $# -ne 1 ]; then
  printf >&2 'usage: install.sh [--undo] BLOG\n'
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
step() { # INDENT
  printf '%s- name: Inject the ingest URL\n' "$1"
  printf '%s  run: bash tools/inject-ingest-url.sh .\n' "$1"
  printf '%s  env:\n' "$1"
  printf '%s    INGEST_API_GATEWAY_URL: ${{ secrets.INGEST_API_GATEWAY_URL || vars.INGEST_API_GATEWAY_URL }}\n\n' "$1"
}

install_step() {
  if [ -z "$workflow" ] && [ ! -e "$starter" ]; then
    change "$starter" "$snippet/$starter"
  elif [ -z "$workflow" ]; then
    printf >&2 'install: no step of %s builds with jekyll.\nNext: run tools/inject-ingest-url.sh before the build by hand.\n' "$starter"
  elif ! grep -qF 'inject-ingest-url.sh' "$workflow"; then
    # The line on which the step that builds begins, and how far it is indented.
    read -r at spaces <<<"$(awk '
      /^ *- / { at = NR; match($0, /^ */); spaces = RLENGTH }
      /^[^#]*jekyll b/ { print at, spaces; exit }
    ' "$workflow")"
    step "$(printf '%*s' "$spaces" '')" >"$work/step"
    { head -n $((at - 1)) "$workflow"; cat "$work/step"; tail -n "+$at" "$workflow"; } >"$work/workflow"
    change "$workflow" "$work/workflow"
  fi
}

undo_step() {
  if [ -z "$workflow" ] || ! grep -qF 'inject-ingest-url.sh' "$workflow"; then return; fi
  if cmp -s "$workflow" "$snippet/$starter"; then
    remove "$workflow"
    return
  fi
  read -r at spaces <<<"$(awk '/- name: Inject the ingest URL/ { match($0, /^ */); print NR, RLENGTH; exit }' "$workflow")"
  step "$(printf '%*s' "${spaces:-0}" '')" >"$work/step"
  if [ -n "$at" ] && tail -n "+$at" "$workflow" | head -n 5 | cmp -s - "$work/step"; then
    { head -n $((at - 1)) "$workflow"; tail -n "+$((at + 5))" "$workflow"; } >"$work/workflow"
    change "$workflow" "$work/workflow"
  else
    printf >&2 'install: the step in %s was changed.\nNext: delete it there by hand.\n' "$workflow"
  fi
}

if [ "$undo" = yes ]; then
  undo_step
  undo_hook
  take_back tools/inject-ingest-url.sh
  take_back _includes/clickstream.html
else
  copy _includes/clickstream.html
  copy tools/inject-ingest-url.sh
  install_hook
  install_step
  printf '%s\n' "$building" | while read -r each; do
    if [ -n "$each" ] && [ "$each" != "$workflow" ]; then
      printf '%s builds with jekyll too and is left as it is. Where it publishes pages, it needs the same step.\n' "$each"
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
elif [ "$undo" != yes ]; then
  printf 'Next: set INGEST_API_GATEWAY_URL on GitHub (Settings, Secrets and variables, Actions) before you push; without it the build stops.\n'
fi

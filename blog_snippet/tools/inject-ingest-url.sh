#!/usr/bin/env bash
# usage: INGEST_API_GATEWAY_URL=https://… inject-ingest-url.sh BLOG          before the build: put the URL into the snippet
#        INGEST_API_GATEWAY_URL=https://… inject-ingest-url.sh --check SITE  after it: every page has that URL
# The URL ends up in public pages: it is configuration, not a secret.
set -euo pipefail
export LC_ALL=C

fail() {
  printf >&2 'inject-ingest-url: %s\nNext: %s\n' "$1" "$2"
  exit 1
}

check=no
if [ "${1:-}" = --check ]; then
  check=yes
  shift
fi
if [ $# -ne 1 ] || [ ! -d "$1" ]; then
  printf >&2 'inject-ingest-url: name one folder: the blog, or with --check the site built from it.\n'
  exit 64
fi
folder=$1
url=${INGEST_API_GATEWAY_URL:-}
set_it='set INGEST_API_GATEWAY_URL to the address of your /ingest (on GitHub: Settings, Secrets and variables, Actions).'

[ -n "$url" ] || fail 'INGEST_API_GATEWAY_URL is empty; a secret that does not exist is empty too.' "$set_it"
case $url in
  *INGEST_API_GATEWAY_URL*) fail 'INGEST_API_GATEWAY_URL is still the placeholder.' "$set_it" ;;
  https://[!/?#]*) ;;
  *) fail "the URL does not begin with https:// and a host: $url" 'browsers block http from an https page; use the https address.' ;;
esac
# Quotes and brackets would end the HTML attribute, braces would start Liquid; in a legal URL all of these are written as %XX.
case $url in
  *[[:space:]]* | *[[:cntrl:]]* | *[\"\<\>\`{}]*) fail "the URL holds a blank, a quote, a bracket or a brace: $url" 'write that character as %XX.' ;;
esac
html_url=$(URL=$url awk 'BEGIN { url = ENVIRON["URL"]; gsub(/&/, "\\&amp;", url); print url }')

if [ "$check" = yes ]; then
  tags=$(grep -rhoE --include='*.html' '<script data-endpoint="[^"]*"' "$folder" || true)
  [ -n "$tags" ] || fail "no page in $folder has the snippet." 'include clickstream.html in _includes/metadata-hook.html.'
  others=$(printf '%s\n' "$tags" | grep -vxF "<script data-endpoint=\"$html_url\"" | sort | uniq -c || true)
  [ -z "$others" ] || fail "pages with another endpoint than $url:
$others" 'run this script on the blog before Jekyll builds it, with JEKYLL_ENV=production.'
  printf '%s pages report to %s\n' "$(printf '%s\n' "$tags" | wc -l | tr -d ' ')" "$url"
  exit 0
fi

include=$folder/_includes/clickstream.html
[ -f "$include" ] || fail "$include does not exist." 'copy blog_snippet/_includes into the blog, or run tools/install.sh.'
changed=$(mktemp)
trap 'rm -f "$changed"' EXIT
# awk, because in a sed replacement & and \ and the delimiter mean something else than themselves.
if URL=$html_url awk '
  BEGIN { placeholder = "INGEST_API_GATEWAY_URL" }
  !done && (attribute = index($0, "data-endpoint=")) && (at = index(substr($0, attribute), placeholder)) {
    at += attribute - 1
    $0 = substr($0, 1, at - 1) ENVIRON["URL"] substr($0, at + length(placeholder))
    done = 1
  }
  { print }
  END { exit !done }
' "$include" >"$changed"; then
  cat "$changed" >"$include"   # not mv: the file keeps its mode
  printf '%s reports to %s\n' "$include" "$url"
elif grep -qF "%}$html_url{%" "$include"; then
  printf '%s reports to %s already\n' "$include" "$url"
else
  fail "$include has no placeholder in data-endpoint." 'take a fresh copy of blog_snippet/_includes/clickstream.html.'
fi

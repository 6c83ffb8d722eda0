#!/bin/sh
# Puts the newest omni into ~/.local/bin, or where OMNI_BIN says:
#
#   curl -fsSL @url@/latest/download/install.sh | sh
#
# OMNI_RELEASES names another place that has the releases, a mirror for one, and OMNI_RELEASE_KEY what they are signed with.
set -eu

# Whole before any of it runs: the line may be cut.
main() {
	url=${OMNI_RELEASES:-'@url@'} key=${OMNI_RELEASE_KEY:-'@key@'}
	bin=${OMNI_BIN:-"$HOME/.local/bin"}
	case $url in
	http://* | https://*) ;;
	*) fail "nobody said where the releases are: set OMNI_RELEASES to their address" ;;
	esac
	need curl && need gzip
	target=$(target)
	folder=$(mktemp -d)
	trap 'rm -rf "$folder"' EXIT
	trap 'exit 1' HUP INT TERM

	fetch manifest.json
	verify
	version=$(field version <"$folder/manifest.json")
	entry=$(tr -d '\n' <"$folder/manifest.json" | sed -n "s/.*\"$target\.gz\": *{\([^}]*\)}.*/\1/p")
	name=$(printf '%s' "$entry" | field name)
	wanted=$(printf '%s' "$entry" | field sha256)
	case $name in
	'') fail "omni $version was not released for $target" ;;
	*[!A-Za-z0-9._-]* | .*) fail "the manifest names a file that is none: $name" ;;
	esac
	fetch "$name"
	found=$(sha256 "$folder/$name")
	[ "$found" = "$wanted" ] || fail "$name is not the file that was released: its SHA-256 is $found instead of $wanted"

	mkdir -p "$bin"
	# Beside where it goes, so that it takes its place in one step.
	new=$(mktemp "$bin/.omni-new-XXXXXX") || fail "cannot write in $bin: set OMNI_BIN to another folder"
	trap 'rm -rf "$folder" "$new"' EXIT
	gzip -dc "$folder/$name" >"$new"
	chmod 755 "$new"
	said=$("$new" --version) || fail "omni $version does not run on this machine"
	[ "$said" = "omni $version" ] || fail "asked for its version it said: $said"
	mv -f "$new" "$bin/omni"

	echo "omni $version is in $bin/omni; $checked."
	case :$PATH: in
	*:"$bin":*) ;;
	*) echo "$bin is not on your PATH yet: export PATH=\"$bin:\$PATH\"" ;;
	esac
	echo "Begin with: omni setup"
}

fail() {
	echo "error: $1" >&2
	exit 1
}

need() {
	command -v "$1" >/dev/null || fail "this needs $1"
}

target() {
	case $(uname -s) in
	Linux) system=unknown-linux-gnu ;;
	*) fail "there is no omni for $(uname -s) yet" ;;
	esac
	# Only this one says what it is.
	case $(ldd --version 2>&1 || true) in
	*musl*) fail "omni needs the GNU C library, and this machine has musl" ;;
	esac
	case $(uname -m) in
	x86_64 | amd64) echo "x86_64-$system" ;;
	aarch64 | arm64) echo "aarch64-$system" ;;
	*) fail "there is no omni for $(uname -m)" ;;
	esac
}

fetch() {
	# What begins where nobody can listen, stays there.
	case $url in
	https://*) set -- "$1" --proto =https --tlsv1.2 ;;
	*) set -- "$1" --proto =http,https ;;
	esac
	file=$1
	shift
	curl --fail --silent --show-error --location --max-redirs 5 --connect-timeout 10 --max-time 1800 "$@" \
		--output "$folder/$file" "$url/latest/download/$file" || fail "cannot fetch $url/latest/download/$file"
}

# Whether the manifest is from those who make omni. Its hashes vouch for the rest.
verify() {
	case $key in
	RW*) ;;
	*)
		checked="its hash is right; its signature was not looked at, as no key was given"
		return
		;;
	esac
	if command -v minisign >/dev/null; then
		fetch manifest.json.minisig
		minisign -Vqm "$folder/manifest.json" -P "$key" >&2 || fail "the release is not signed with the key $key"
		checked="its signature and its hash are right"
	else
		checked="its hash is right; with minisign installed its signature is looked at as well"
	fi
}

# The value of a key in JSON of one level.
field() {
	sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -n 1
}

sha256() {
	if command -v sha256sum >/dev/null; then
		sha256sum "$1"
	else
		shasum -a 256 "$1"
	fi | cut -d ' ' -f 1
}

main

#!/bin/sh
# Runs jqlight as the owner of the folder mounted at runs, so that what it writes belongs to the host's user.
# As any other user than root (--user) it just runs. JQLIGHT_USER=UID:GID names the user where the folder is root's.
set -eu
runs=${JQLIGHT_RUNS:-/home/jqlight/runs}

refuse() {
  echo "jqlight: $1" >&2
  exit 2
}

# What a Docker engine makes for a mount that is missing is root's and empty; what jqlight wrote there as root is known
# by its name. Nothing else is given away.
is_ours() {
  for entry in "$runs"/* "$runs"/.[!.]*; do
    [ -e "$entry" ] || continue
    case ${entry##*/} in
      mlflow.db* | mlartifacts | lost+found) ;;
      *) [ -e "$entry/run.json" ] || [ -e "$entry/sweep.json" ] || return 1 ;;
    esac
  done
}

[ "$(id -u)" = 0 ] || exec jqlight "$@"
# Rootless engines and user namespaces: root in here is the host's user already.
read -r _ outside _ < "${JQLIGHT_UID_MAP:-/proc/self/uid_map}"
[ "$outside" = 0 ] || exec jqlight "$@"

owner=$(stat -c %u:%g "$runs")
case $owner in
  0:*)
    owner=${JQLIGHT_USER:-1000:1000}
    if ! setpriv --reuid="${owner%:*}" --regid="${owner#*:}" --clear-groups test -w "$runs" 2>/dev/null; then
      is_ours || refuse "$runs belongs to root and holds other files than runs; mount a folder of your own, or give --user"
      chown -hR "$owner" "$runs" 2>/dev/null ||
        refuse "$runs belongs to root and cannot be given to $owner; mount a folder of your own for writing, or give --user"
    fi
    ;;
esac
exec setpriv --reuid="${owner%:*}" --regid="${owner#*:}" --clear-groups --no-new-privs -- jqlight "$@"

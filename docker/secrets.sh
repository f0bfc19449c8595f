#!/bin/sh
# Makes the secrets of the compose stack in secrets/ beside this file, where there are none yet.
# The folder is closed to others; the files in it can be read, since each container has a user of its own.
set -eu
cd "$(dirname "$0")"
mkdir -p -m 700 secrets
new() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }
if [ ! -e secrets/mongo_password ]; then new >secrets/mongo_password; fi
if [ ! -e secrets/registry_admin_password ]; then new >secrets/registry_admin_password; fi
if [ ! -e secrets/registry_viewer_password ]; then
  viewer=$(new)
  echo "$viewer" >secrets/registry_viewer_password
  sed "s/REGISTRY_PASSWORD/$viewer/" ui.yml >secrets/ui.yml
fi
chmod 444 secrets/*

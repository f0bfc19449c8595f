#!/bin/sh
# Creates the missing secrets of the compose stack in secrets/, beside this file.
# Other users cannot enter the folder. Its files are readable, since the containers run as different users.
set -eu
cd "$(dirname "$0")"
mkdir -p -m 700 secrets
new() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }
if [ ! -e secrets/mongo_password ]; then new >secrets/mongo_password; fi
if [ ! -e secrets/page_password ]; then new >secrets/page_password; fi
if [ ! -e secrets/registry_admin_password ]; then new >secrets/registry_admin_password; fi
if [ ! -e secrets/registry_viewer_password ]; then
  viewer=$(new)
  echo "$viewer" >secrets/registry_viewer_password
  sed "s/REGISTRY_PASSWORD/$viewer/" ui.yml >secrets/ui.yml
fi
chmod 444 secrets/*

#!/bin/sh
# What a host has: files with size and time of change, packages, units, the network. Left out is what changes by itself.
{
  find /etc /usr/local /opt /root /var/lib -xdev \( -path /var/lib/systemd -o -path /var/lib/private \) -prune -o -type f -printf '%p %m %s %T@\n' -o -type l -printf '%p -> %l\n'
  dpkg-query -W -f '${Package} ${Version} ${Status}\n'
  systemctl list-unit-files --no-legend --no-pager --plain
  ip -oneline link | sed 's/ qlen.*//; s/^[0-9]*: //'
  ip -oneline -4 address | sed 's/ valid_lft.*//; s/^[0-9]*: //'
  ip rule
  ip -4 route show table all
} | sort

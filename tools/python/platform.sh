#!/bin/sh
# Ends with one sentence where no wheel of requirements_lock.txt fits this machine, before gigabytes are fetched. PyTorch's
# are for macOS 14 on arm64 and for glibc 2.28 on x86-64 and arm64. What a machine does not tell is no objection.
refuse() {
  echo "litrev: $1. PyTorch needs a Mac with Apple silicon and macOS 14 or newer, or 64-bit Linux on x86-64 or arm64" \
    "with glibc 2.28 or newer (Debian 10, Ubuntu 20.04, RHEL 8)${2:+; $2}." >&2
  exit 1
}

on_macos() {
  version=$(SYSTEM_VERSION_COMPAT=0 sw_vers -productVersion 2>/dev/null)
  case "$cpu $(sysctl -n hw.optional.arm64 2>/dev/null)" in
    arm64*) ;;
    *1) refuse "this shell runs as on an Intel Mac (Rosetta)" "open a terminal without Rosetta and run the same command again" ;;
    x86_64*) refuse "this is a Mac with an Intel processor" ;;
  esac
  [ "${version%%.*}" -ge 14 ] 2>/dev/null || [ -z "$version" ] || refuse "this is macOS $version" "update macOS"
}

on_linux() {
  case $cpu in
    x86_64 | aarch64 | arm64 | "") ;;
    *) refuse "this is Linux on $cpu" ;;
  esac
  [ "$(getconf LONG_BIT 2>/dev/null)" != 32 ] || refuse "this is a 32-bit Linux"
  libc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
  case $libc in
    "glibc "[3-9]* | "glibc 2."[3-9][0-9]* | "glibc 2.2"[89]* | "glibc 2."[1-9][0-9][0-9]*) ;;
    glibc*) refuse "this Linux has $libc" ;;
    *) case $(ldd --version 2>&1) in *musl*) refuse "this Linux has musl (as Alpine does), not glibc" ;; esac ;;
  esac
}

cpu=$(uname -m 2>/dev/null)
case $(uname -s 2>/dev/null) in
  Darwin) on_macos ;;
  Linux) on_linux ;;
  "") ;;
  MINGW* | MSYS* | CYGWIN* | Windows*) refuse "this is a shell of Windows" "Windows has such a Linux: wsl --install" ;;
  *) refuse "this is $(uname -s)" ;;
esac

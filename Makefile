# The verbs of the lab. What they do is in lab/, one script each; docs/lab.md tells how it fits together.
.DEFAULT_GOAL := help
SCENARIO := default
NODE := k8s-guide-worker2
export PATH := $(CURDIR)/.venv/bin:$(PATH)

up: ## three real nodes, the playbook, pods, and the walk of the guide, checked point by point (root, Debian 12 or 13)
	@lab/up

down: ## take the lab away: the machine is as it was
	@lab/down

tshoot: ## a shell in a pod on NODE=k8s-guide-worker2
	@lab/tshoot "$(NODE)"

setup: ## the environment .venv and the collection's path alone; no root
	@lab/setup

lint: setup ## ansible-lint at the production profile, yamllint, ruff, mypy, shellcheck
	@lab/lint

unit: setup ## tests of the planners, as tables
	@pytest tests/unit $(ARGS)

integration: setup ## modules and kindnet-reconcile in network namespaces (root)
	@pytest tests/integration $(ARGS)

browser: setup ## drift.html in headless Chromium
	@pytest tests/browser $(ARGS)

screenshots: setup ## the pictures of docs/images, drawn again by the same
	@pytest tests/browser/test_pictures.py -k readme --pictures docs/images

sanity: setup ## ansible-test sanity (root)
	@lab/sanity

molecule: setup ## one scenario on real nodes: SCENARIO=default (root)
	@lab/molecule "$(SCENARIO)"

bench: setup ## measurements beside what a user would use instead (root)
	@lab/bench

test: ## the checks of every change, in one go, with the time of each (root)
	@lab/test

test-all: ## the same and the slow rest
	@lab/test --all

build: setup ## the tarball that ansible-galaxy installs
	@ansible-galaxy collection build --force

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 14

.PHONY: up down tshoot setup lint unit integration browser screenshots sanity molecule bench test test-all build help

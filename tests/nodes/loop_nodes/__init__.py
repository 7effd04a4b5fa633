"""Start Loop and End Loop for hosts before 0.36, to be linked into `custom_nodes/` by tests.

As in the host's own, the nodes between the two run as copies with new ids, one turn after another: each copy is shown
as its original, and depends on the turn before. Here the end unrolls the loop, when the sizes of the turns are known;
nodes between the two run in turns alone if the graph is asked for what comes after the end.
"""

from __future__ import annotations

from comfy_execution.graph_utils import GraphBuilder, is_link

TURN, HELD = "LoopIteration", {"lazy": True, "rawLink": True}


class AnyType(str):
    """Fits every type, in old hosts too."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __ne__(self, _other):
        return False


ANY = AnyType("*")


class StartLoop:
    RETURN_TYPES, FUNCTION, CATEGORY = ("INT", "BOOLEAN", "BOOLEAN", ANY, ANY), "run", "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        wired = {"mode.max_iteration": ("INT", {}), "mode.step": ("INT", {}), "initial_iteration_value": (ANY, {})}
        return {"required": {}, "optional": wired}

    def run(self, **_inputs):
        raise AssertionError("turns have copies of their own")


class LoopIteration:
    RETURN_TYPES, FUNCTION, CATEGORY = StartLoop.RETURN_TYPES, "run", "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"start": ("INT", {})}}

    def run(self, start, value=None, **_turn_before):
        return start, False, False, None, value


class EndLoop:
    RETURN_TYPES, OUTPUT_IS_LIST, FUNCTION, CATEGORY = (ANY,), (True,), "run", "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        wired = ("output_value", "next_iteration_value", "terminations.termination0", "terminations.termination1")
        return {
            "required": {},
            "optional": dict.fromkeys(wired, (ANY, HELD)),
            "hidden": {"prompt": "DYNPROMPT", "end": "UNIQUE_ID"},
        }

    def run(self, prompt, end, **_wires):
        begin = next(key for key, node in prompt.get_original_prompt().items() if node["class_type"] == "StartLoop")
        inputs = prompt.get_node(begin)["inputs"]
        graph = GraphBuilder()
        sizes = {"start": "mode.start_iteration_index", "stop": "mode.max_iteration", "step": "mode.step"}
        unrolled = graph.node("LoopUnrolled", begin=begin, loop_end=end, **{to: inputs[at] for to, at in sizes.items()})
        return {"result": (unrolled.out(0),), "expand": graph.finalize()}


class LoopUnrolled:
    RETURN_TYPES, FUNCTION, CATEGORY = (ANY,), "run", "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        values = {name: ("INT", {}) for name in ("start", "stop", "step")}
        ids = {name: ("STRING", {}) for name in ("begin", "loop_end")}
        return {"required": values | ids, "hidden": {"prompt": "DYNPROMPT"}}

    @classmethod
    def IS_CHANGED(cls, **_inputs):  # noqa: N802
        return float("nan")

    def run(self, prompt, begin, loop_end, start, stop, step):
        nodes, wires = prompt.get_original_prompt(), prompt.get_node(loop_end)["inputs"]
        body, graph = list_body(nodes, begin, loop_end), GraphBuilder()
        carried, before, results = nodes[begin]["inputs"]["initial_iteration_value"], [], []
        for position, value in enumerate(range(start, stop, step)):
            waits = {f"dependency{number}": link for number, link in enumerate(before)}
            turn = graph.node(TURN, f"iteration_{position}", start=value, value=carried, **waits)
            turn.set_override_display_id(begin)
            copies = {key: graph.node(nodes[key]["class_type"], f"{position}_{key}") for key in body}

            def moved(source, turn=turn, copies=copies):
                if not is_link(source):
                    return source
                copy = turn if source[0] == begin else copies.get(source[0])
                return copy.out(source[1]) if copy else source

            for key, copy in copies.items():
                copy.set_override_display_id(key)
                for name, source in nodes[key]["inputs"].items():
                    copy.set_input(name, moved(source))
            results.append(moved(wires["output_value"]))
            carried = moved(wires["next_iteration_value"])
            before = [moved(source) for source in wires.values() if is_link(source)]
        named = {f"output{number}": link for number, link in enumerate(results)}
        waits = {f"dependency{number}": link for number, link in enumerate(before)}
        collected = graph.node("LoopResult", "result", count=len(results), **named, **waits)
        return {"result": (collected.out(0),), "expand": graph.finalize()}


class LoopResult:
    RETURN_TYPES, FUNCTION, CATEGORY = (ANY,), "run", "tests"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"count": ("INT", {})}}

    def run(self, count, **values):
        return ([values[f"output{number}"] for number in range(count)],)


def list_body(nodes, begin, end):
    """Return the ids of the nodes between the two."""
    found, size = {begin}, 0
    while size != len(found):
        size = len(found)
        for key, node in nodes.items():
            if key != end and any(is_link(value) and value[0] in found for value in node["inputs"].values()):
                found.add(key)
    return sorted(found - {begin})


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (StartLoop, LoopIteration, EndLoop, LoopUnrolled, LoopResult)}

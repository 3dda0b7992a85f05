-- wrk: POST the file that $BODY names, on kept connections, or with $FRESH on a new one for each request.
-- Without $BODY, GET.
if os.getenv("BODY") then
  local file = assert(io.open(os.getenv("BODY"), "rb"))
  wrk.body = file:read("*a")
  file:close()
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
end
if os.getenv("FRESH") then
  wrk.headers["Connection"] = "close"
end
-- A line that bench.py can parse. Latencies are in microseconds.
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("BENCH %d %d %d %d %d %d\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end

export default class {
  id() { return 'recorded'; }
  async callApi(prompt, {vars}) {
    return {output: String(vars.answer), cost: 0.001, finishReason: vars.finish};
  }
}

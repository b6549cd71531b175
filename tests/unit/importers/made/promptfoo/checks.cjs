module.exports = {isA: (output, context) => output === 'a'};

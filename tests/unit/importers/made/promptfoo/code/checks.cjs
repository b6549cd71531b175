const {wanted} = require('./wanted.cjs');
module.exports = {isB: output => output === wanted, isTwo: output => JSON.parse(output) === 2};
